//! Command lines, options, and calls of the API.

use super::Seeds;
use super::choice::row;

pub(crate) fn make(seeds: &mut Seeds) {
    let lines = [
        "create volume main --metaStore m --blockStore b --blockSize 4M --retention forever",
        "create volume-token --volumeID genomes --mountPath /released --flags ro --notes x --expires 30d",
        "create region --code a --provider b",
        "list volumes --filter metaStore=m --json",
        "update volume-token abc --expires never --flags ro",
        "rotate meta-store m --overlap 0",
        "show region aws/us-east-1 --credsFile /x",
        "init creds --adminAddr a:1 --force",
        "up /mnt/x --stateDir /s --block-size 1M --adminPort 1 --metaPort 2 --metricsPort 3",
    ];
    for (number, line) in lines.iter().enumerate() {
        seeds.put("configure", &format!("line-{number}"), format!("\0{}", line.replace(' ', "\n")));
    }
    let values =
        ["4MiB", "24h", "forever", "2030-01-31T12:00:00Z", "ro,noExec,umask=0027", "[::1]:7440", "host:7440"];
    for (number, value) in values.iter().enumerate() {
        seeds.put("configure", &format!("value-{number}"), format!("\u{1}{value}"));
    }
    let options =
        "rw,_netdev,nofail,credsFile=/c d,umask=027,transport=dev,memCapacity=2G,x-systemd.automount";
    seeds.put("option", "options", format!("\0{options}\0volume"));
    seeds.put("option", "helper", format!("\u{1}vol\0/mnt\0-sv\0-t\0fuse.flexfs\0-o\0{options}"));
    seeds.put("option", "table", format!("\u{2}/dev/x / ext4 defaults 0 1\n\0vol\0/mnt/a b\0{options}"));
    for number in 1..=6 {
        seeds.put("rest", &format!("calls-{number}"), row(number + 200, 60));
    }
    // Raw bodies to one noun after the other.
    for (noun, body) in [
        (1u8, r#"{"code":"b","name":"B"}"#),
        (
            5,
            r#"{"name":"b","metaStore":"a","blockStore":"a","blockSize":1048576,"flags":{"ro":true,"umask":18}}"#,
        ),
        (6, r#"{"volume":"a","mountPath":"/x/","expiresAt":4000000000,"flags":"ro,noExec"}"#),
    ] {
        let length = u8::try_from(body.len()).unwrap();
        seeds.put(
            "rest",
            &format!("create-{noun}"),
            [&[1, noun, 0, 3, length], body.as_bytes(), &[0]].concat(),
        );
    }
}
