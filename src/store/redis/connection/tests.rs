//! Connections to a real server.

use std::error::Error as _;

use redis::Pipeline;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::Clock;
use crate::store::redis::redis_server::RedisServer;

/// As good as at once, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_millis(20);
const READ: Duration = Duration::from_millis(100);

fn server(url: &str) -> Server {
    Server {
        address: Address::parse(url, &AddressOptions::default()).unwrap(),
        connect_timeout: Duration::from_millis(500),
        check_interval: Duration::from_secs(5),
        breaker: Breaker::new(BreakerPolicy::default()),
        clock: Clock::system(),
        bulletin: Arc::new(Bulletin::new()),
        pulse: Default::default(),
        terms: Default::default(),
    }
}

async fn try_open(url: &str) -> Result<Connection, Error> {
    Connection::open(Arc::new(server(url))).await
}

async fn open(redis: &RedisServer) -> Connection {
    try_open(&redis.url()).await.unwrap()
}

async fn echo(connection: &Connection, text: &str, limit: Duration) -> Result<String, Error> {
    let mut exchange = connection.begin(limit)?;
    let mut commands = Pipeline::new();
    commands.cmd("ECHO").arg(text);
    let text = exchange.send(&commands).await?.bytes()?.unwrap();
    Ok(String::from_utf8(text.to_vec()).unwrap())
}

async fn until<F: Future<Output = bool>>(limit: Duration, mut condition: impl FnMut() -> F) {
    let end = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < end, "not within {limit:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn until_answered(connection: &Connection, limit: Duration) {
    until(limit, || async {
        echo(connection, "x", READ).await.is_ok()
    })
    .await;
}

/// Makes sure that a command fails, and without being waited for.
async fn assert_fails_at_once(connection: &Connection) {
    let began = Instant::now();
    let error = echo(connection, "x", READ).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

/// How many clients the server has, but for the one that asks.
fn clients(redis: &RedisServer) -> usize {
    redis.command(&["CLIENT", "LIST"]).matches("addr=").count() / 2 - 1
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_of_open_and_nothing_to_wait_for_otherwise() {
    let mut redis = RedisServer::start();
    redis.kill();
    let error = try_open(&redis.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error
            .source()
            .is_some_and(|cause| cause.to_string().contains("refused"))
    );

    let connection = Connection::open_lazily(Arc::new(server(&redis.url()))).unwrap();
    assert_fails_at_once(&connection).await;
    redis.restart();
    until_answered(&connection, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn after_a_crash_commands_fail_at_once_until_the_server_is_back() {
    let mut redis = RedisServer::start();
    let connection = open(&redis).await;
    assert_eq!(echo(&connection, "before", READ).await.unwrap(), "before");
    redis.kill();
    until(READ, || async {
        echo(&connection, "x", READ).await.is_err()
    })
    .await;
    for _ in 0..50 {
        assert_fails_at_once(&connection).await;
        sleep(Duration::from_millis(4)).await;
    }
    redis.restart();
    until_answered(&connection, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_to_the_deadline_and_then_not_at_all() {
    let redis = RedisServer::start();
    let connection = open(&redis).await;
    redis.stop();
    for _ in 0..5 {
        let began = Instant::now();
        let error = echo(&connection, "x", READ).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(
            (READ..READ + AT_ONCE).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
    }
    for _ in 0..200 {
        assert_fails_at_once(&connection).await;
        sleep(Duration::from_millis(10)).await;
    }
    redis.cont();
    until_answered(&connection, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_replaced() {
    let redis = RedisServer::start();
    let connection = open(&redis).await;
    for _ in 0..3 {
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        until_answered(&connection, Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_while_nobody_asks_is_noticed() {
    let redis = RedisServer::start();
    let server = Server {
        check_interval: Duration::from_millis(50),
        ..server(&redis.url())
    };
    let connection = Connection::open(Arc::new(server)).await.unwrap();
    redis.stop();
    until(Duration::from_secs(3), || async {
        !connection.health().connected
    })
    .await;
    assert_fails_at_once(&connection).await;
    redis.cont();
    until_answered(&connection, Duration::from_secs(3)).await;
    assert!(connection.health().connected);
}

#[tokio::test]
async fn replies_that_come_too_late_are_never_taken_for_those_of_later_commands() {
    let redis = RedisServer::start();
    let policy = BreakerPolicy {
        consecutive: u32::MAX,
        sample: u32::MAX,
        ..Default::default()
    };
    let server = Server {
        breaker: Breaker::new(policy),
        ..server(&redis.url())
    };
    let connection = Connection::open(Arc::new(server)).await.unwrap();
    for round in 0..20 {
        let mut pause = Pipeline::new();
        pause.cmd("CLIENT").arg("PAUSE").arg(20).arg("ALL");
        connection
            .begin(READ)
            .unwrap()
            .send(&pause)
            .await
            .unwrap()
            .done()
            .unwrap();
        for late in 0..3 {
            let text = format!("late {late}");
            let reply = echo(&connection, &text, Duration::from_millis(4));
            assert_eq!(reply.await.unwrap_err().kind(), ErrorKind::Timeout);
        }
        let text = format!("round {round}");
        assert_eq!(
            echo(&connection, &text, Duration::from_secs(1))
                .await
                .unwrap(),
            text
        );
    }
}

#[tokio::test]
async fn the_task_and_the_socket_end_with_the_connection() {
    let redis = RedisServer::start();
    let connection = open(&redis).await;
    echo(&connection, "x", READ).await.unwrap();
    assert_eq!(clients(&redis), 1);
    drop(connection);
    until(Duration::from_secs(1), || async { clients(&redis) == 0 }).await;
}

#[tokio::test]
async fn closing_answers_what_is_under_way_and_refuses_what_comes_later() {
    let redis = RedisServer::start();
    let connection = open(&redis).await;
    redis.command(&["CLIENT", "PAUSE", "50", "ALL"]);
    let (reply, ()) = tokio::join!(echo(&connection, "last", Duration::from_secs(1)), async {
        sleep(Duration::from_millis(5)).await;
        connection.close().await;
    });
    assert_eq!(reply.unwrap(), "last");
    assert_fails_at_once(&connection).await;
    connection.close().await;
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_is_away() {
    let mut redis = RedisServer::start();
    redis.kill();
    let connection = Connection::open_lazily(Arc::new(server(&redis.url()))).unwrap();
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    connection.close().await;
    assert!(began.elapsed() < AT_ONCE);
}

#[test]
fn a_connection_whose_runtime_has_ended_is_down() {
    let redis = RedisServer::start();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let connection = first.block_on(open(&redis));
    let error = connection.begin(READ).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "outside a runtime");
    drop(first);
    runtime().block_on(async {
        assert_fails_at_once(&connection).await;
        connection.close().await;
    });
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_refused_without_being_told() {
    let redis = RedisServer::with_args(&["--requirepass", "s3cret"]);
    let with = |login: &str| redis.url().replace("redis://", &format!("redis://{login}"));
    for url in [redis.url(), with(":wr0ng@"), with("nobody:wr0ng@")] {
        let error = try_open(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");
    }
    let connection = try_open(&with(":s3cret@")).await.unwrap();
    assert_eq!(echo(&connection, "x", READ).await.unwrap(), "x");
    assert!(!format!("{connection:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_server_without_room_for_another_client_is_away() {
    let redis = RedisServer::with_args(&["--maxclients", "1"]);
    let first = open(&redis).await;
    let error = try_open(&redis.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let second = Connection::open_lazily(Arc::new(server(&redis.url()))).unwrap();
    drop(first);
    until_answered(&second, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_server_that_runs_a_long_script_is_left_alone_until_it_is_done() {
    let redis = RedisServer::with_args(&["--busy-reply-threshold", "1"]);
    let connection = open(&redis).await;
    let script = "local t = redis.call('TIME')
        repeat local n = redis.call('TIME') until n[1] - t[1] + (n[2] - t[2]) / 1e6 > 1";
    let _running = redis.send(&["EVAL", script, "0"]);
    sleep(Duration::from_millis(50)).await;
    for _ in 0..5 {
        let error = echo(&connection, "x", READ).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("BUSY"), "{error}");
    }
    assert!(connection.shared.server.breaker.is_open());
    until_answered(&connection, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_away_until_it_has() {
    let redis = RedisServer::with_args(&[
        "--enable-debug-command",
        "yes",
        "--rdbcompression",
        "no",
        "--loading-process-events-interval-bytes",
        "1024",
        "--key-load-delay",
        "10000",
    ]);
    redis.command(&["DEBUG", "POPULATE", "100", "key", "1000"]);
    let connection = open(&redis).await;
    let _reloading = redis.send(&["DEBUG", "RELOAD"]);
    let get = || async {
        let mut get = Pipeline::new();
        get.cmd("GET").arg("x");
        connection.begin(READ)?.send(&get).await?.bytes()
    };
    let is_loading = || async {
        get()
            .await
            .is_err_and(|e| e.to_string().contains("LOADING"))
    };
    until(Duration::from_secs(2), is_loading).await;
    until(Duration::from_secs(5), || async { get().await.is_ok() }).await;
}

/// Answers all commands like a server that does nothing, until one contains this.
async fn answer_until(mut client: TcpStream, last: &str) {
    let mut received = [0; 1024];
    while let Ok(length @ 1..) = client.read(&mut received).await {
        let commands = String::from_utf8_lossy(&received[..length]).into_owned();
        if commands.contains(last) {
            return;
        }
        let count = commands.matches('*').count();
        client
            .write_all("+OK\r\n".repeat(count).as_bytes())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_at_a_question_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let _connection = Connection::open_lazily(Arc::new(server(&url))).unwrap();
    for _ in 0..3 {
        let attempt = timeout(Duration::from_secs(2), listener.accept()).await;
        let (client, _) = attempt.unwrap().unwrap();
        answer_until(client, "\r\nINFO\r\n").await;
    }
}
