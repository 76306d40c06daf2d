use std::net::Ipv4Addr;

use proto::amqp::{Event, Limits};
use testkit::amqp_client::{AmqpClient, PATIENCE};
use testkit::whole::Muster;
use tokio::io::duplex;

use super::*;
use crate::amqp::AmqpServer;
use crate::mqtt::MqttServer;
use crate::tls::SecureStream;

/// What a connection's task may hold beside [`Talk`] and TLS while nothing is said; ten thousand of them are idle at
/// once (`docs/performance.md`).
const TASK_BYTES_MAX: usize = 1_536;

/// So little that neither end can write what the other has to read.
const PIPE_BYTES: usize = 64;

fn caller_over_amqp() -> Caller {
    let address = Ipv4Addr::LOCALHOST.into();
    Caller {
        endpoint: Endpoint { address, server_name: None, host: None, admin: false },
        peer: address,
        transport: Transport::Amqp,
        evidence: Evidence::default(),
    }
}

#[tokio::test]
async fn a_client_that_writes_before_it_reads_is_read_meanwhile() {
    let muster = Muster::start().await.expect("a server");
    let limits = Limits::default();
    let sessions = usize::from(limits.sessions_max) - 1;
    let server = AmqpServer::new(Door::new(muster.service().clone(), u32::MAX), limits);
    let (near, far) = duplex(PIPE_BYTES);
    let tasks = Tasks::new();
    let serving = server.serve(far, caller_over_amqp(), &tasks);
    let asking = async {
        let mut client = AmqpClient::new(near, "127.0.0.2", false);
        client.begin().await;
        for _ in 0..sessions {
            client.connection.begin().expect("a session");
        }
        timeout(PATIENCE, client.flush()).await.expect("the server reads").expect("a connection");
        for _ in 0..sessions {
            let heard = client.hear().await;
            assert!(matches!(heard, Some(Event::Begin { .. })), "{heard:?}");
        }
    };
    tokio::select! {
        () = asking => {}
        () = serving => panic!("the server left"),
    }
    muster.stop().await;
}

#[test]
fn the_task_of_a_quiet_connection_is_small() {
    fn size<'a, S: 'a, F: Future>(_: impl FnOnce(&'a S, SecureStream, Caller, &'a Tasks) -> F) -> usize {
        size_of::<F>()
    }
    let (mqtt, amqp) = (size(MqttServer::serve), size(AmqpServer::serve));
    assert!(mqtt <= TASK_BYTES_MAX && amqp <= TASK_BYTES_MAX, "{mqtt} and {amqp} bytes");
}
