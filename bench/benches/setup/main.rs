//! The setup path end to end over loopback, against a real admin.flexfs and a real meta.flexfs: the question to admin,
//! TLS with `Open` and the token's validation, `Attach` of one more link, `Resume`.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a measurement: a step that fails ends it")]

mod cluster;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, VOLUME};
use criterion::{BatchSize, Criterion, criterion_group};
use flexfs_mount::link::conn::{Conn, HANDSHAKE_MAX};
use flexfs_mount::link::{Remote, Target};
use flexfs_mount::setup::{self, Config};
use flexfs_uring::{Shard, ShardConfig, clock};
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::hello::{Hello, Welcome, prove};
use flexfs_wire::limits::PROTOCOL_VERSIONS;
use flexfs_wire::settings::Flags;
use flexfs_wire::tls::{self, ALPN_META, Role};
use flexfs_wire::token::{Secret, Token};

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .without_plots()
}

fn target(cluster: &Cluster, token: &Token) -> Target {
    Target {
        meta_addr: cluster.meta.clone(),
        tls: tls::client_config(token.ca_pin, Role::Meta, ALPN_META),
        token: Secret::new(token.to_text().to_string()),
        volume: VOLUME.to_owned(),
        client: "bench:/mnt".to_owned(),
        flags: Flags::default(),
        soft: None,
        shards: 1,
        cipher: None,
        disk: None,
        locate: None,
        lock_wait_max: Duration::from_secs(30),
    }
}

fn paths(c: &mut Criterion) {
    let cluster = Cluster::start();
    let creds = || Creds {
        admin_addr: AdminAddr::parse(&cluster.admin).unwrap(),
        token: cluster.token.clone(),
        secret: None,
    };
    let mut group = c.benchmark_group("setup");
    group.bench_function("for-token", |b| b.iter(|| setup::for_token(&creds()).unwrap()));
    // A token that meta has not seen is asked about; for some seconds it knows the answer then.
    group.bench_function("open-asking-admin", |b| {
        b.iter_batched(
            || target(&cluster, &cluster.another_token()),
            |target| Remote::open(target).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("open-known-token", |b| {
        b.iter(|| Remote::open(target(&cluster, &cluster.token)).unwrap());
    });
    group.bench_function("for-token-and-open", |b| {
        b.iter(|| {
            let config = Config {
                creds: creds(),
                volume: VOLUME.to_owned(),
                client: "bench:/mnt".to_owned(),
                flags: Flags::default(),
                soft: false,
                mem_capacity: 0,
                disk: None,
                shards: 1,
            };
            setup::connect(&config).unwrap()
        });
    });
    group.bench_function("attach", |b| b.iter_custom(|count| claims(&cluster, count, false)));
    group.bench_function("resume", |b| b.iter_custom(|count| claims(&cluster, count, true)));
    group.finish();
}

/// Time of `count` more links of one session, each as a shard makes it: TCP, TLS, hello, welcome.
fn claims(cluster: &Cluster, count: u64, resume: bool) -> Duration {
    let remote = Remote::open(target(cluster, &cluster.token)).unwrap();
    let target = target(cluster, &cluster.token);
    Shard::new(&ShardConfig::default()).unwrap().block_on(async move {
        let start = clock::now();
        for _ in 0..count {
            claim(&remote, &target, resume).await;
        }
        clock::now() - start
    })
}

async fn claim(remote: &Arc<Remote>, target: &Target, resume: bool) {
    let granted = remote.granted();
    let mut conn = Conn::connect(target, &target.meta_addr, HANDSHAKE_MAX).await.unwrap();
    let (versions, session) = (PROTOCOL_VERSIONS, granted.session);
    let proof = prove(&granted.resume_key, session, conn.exporter());
    let hello = if resume {
        Hello::Resume { versions, session, proof }
    } else {
        Hello::Attach { versions, session, proof }
    };
    let welcome = conn.greet(&hello).await.unwrap();
    assert!(matches!(welcome, Welcome::Attached { .. }), "{welcome:?}");
}

criterion_group! {
    name = benches;
    config = config();
    targets = paths
}

/// This program is also the servers it starts: what is measured is what was built with it.
fn main() -> ExitCode {
    if let Some(code) = cluster::serve() {
        return code;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    ExitCode::SUCCESS
}
