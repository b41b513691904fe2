//! Bad weather between clients and the metadata server: delays, links that overtake each other, connections lost in the middle of
//! a frame, peers that fall silent.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use super::RECOVERY;
use super::workload::Workload;
use crate::harness::{Proxy, Transport, Weather, now};

both!(storms);

/// How long each weather lasts.
const LASTS: Duration = Duration::from_secs(5);

/// Two clients work behind a proxy that does its worst; a third one, with a link of its own, sees the result.
fn storms(transport: Transport) {
    let cluster = super::cluster(transport);
    let server = cluster.meta().flag("--bindAddr").unwrap().into_string().unwrap();
    let proxy = Proxy::start(server.parse().unwrap(), 7);
    cluster.move_meta(&proxy.address());
    let (one, two) = (cluster.second_mount(), cluster.second_mount());
    assert_eq!(cluster.status_of(&one)["link"]["metaAddr"], proxy.address().as_str());
    let load = Workload::start(&[&one, &two], 77);
    let start = now();
    let weathers = [
        Weather { delay: Duration::from_millis(8), ..Weather::default() },
        Weather { torn: 150, ..Weather::default() },
        Weather { torn: 100, delay: Duration::from_millis(3), ..Weather::default() },
        // Rare: each costs its client seconds of silence, and five in a row would cost it the session.
        Weather { half_open: 1_000, ..Weather::default() },
        Weather { hold: true, ..Weather::default() },
    ];
    for weather in weathers {
        println!("{:?}: {:?}, steps {:?}: now {weather:?}", start.elapsed(), proxy.counts(), load.counts());
        let fair = weather.hold;
        proxy.set(weather);
        if fair {
            // Everything arrives late, and all at once; short of what would be taken for a dead server.
            sleep(Duration::from_secs(3));
            proxy.set(Weather::default());
        } else {
            sleep(LASTS);
            load.goes_on(RECOVERY, "in bad weather");
        }
        proxy.drop_all();
    }
    proxy.set(Weather::default());
    load.goes_on(RECOVERY, "in fair weather");
    println!("{:?}: {:?}, steps {:?}", start.elapsed(), proxy.counts(), load.counts());
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[&one, &two, cluster.mnt()]);
    println!("{:?}: all is right", start.elapsed());
    let counts = proxy.counts();
    assert!(counts.torn.load(Ordering::Relaxed) > 5, "no frame was torn: {counts:?}");
    assert!(counts.half_open.load(Ordering::Relaxed) > 0, "no connection was half open: {counts:?}");
    for mnt in [&one, &two] {
        assert!(cluster.link_figure(mnt, "reconnects") > 5, "{mnt:?} noticed nothing");
        assert_eq!(cluster.link_figure(mnt, "sessionsLost"), 0, "{mnt:?} lost its session");
    }
    cluster.finish();
}
