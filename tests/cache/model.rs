//! Random histories against a model of the data behind the handler: no answer is older than an
//! acknowledged invalidation, nor than its lifetime allows.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use proptest::prelude::*;
use tower_response_cache::{CacheLayer, ErrorKind, Rules, RulesBuilder, Target};

use crate::support::{
    Answer, Broken, Cache, Call, Double, Fault, Operation, Origin, request, response, settle,
    status, ttl,
};

const LIFETIME: u64 = 10;
const STALE_WINDOW: u64 = 5;
const ITEMS: [&str; 2] = ["/item/1", "/item/a b"];
const LIST: &str = "/list";

fn rules() -> RulesBuilder {
    let rule = || ttl(LIFETIME).stale_while_revalidate(Duration::from_secs(STALE_WINDOW));
    Rules::builder()
        .route("/item/{id}", rule().tag("item:{id}"))
        .route("/list", rule())
        .on_write("/item/{id}", ["/list"])
}

/// What the handler reads and writes, by decoded paths.
#[derive(Debug, Default)]
struct Data {
    now: u64,
    /// When each version was replaced; the last one is current.
    history: BTreeMap<&'static str, Vec<u64>>,
    /// The oldest version that may still be seen.
    floors: BTreeMap<&'static str, usize>,
    /// What each write has made, by the number that it carries.
    writes: BTreeMap<usize, Versions>,
}

type Versions = Vec<(&'static str, usize)>;

impl Data {
    fn version(&self, path: &str) -> usize {
        self.history.get(path).map_or(0, Vec::len)
    }

    fn change(&mut self, item: &'static str) {
        for path in [item, LIST] {
            self.history.entry(path).or_default().push(self.now);
        }
    }

    fn versions(&self, paths: &[&'static str]) -> Versions {
        paths
            .iter()
            .map(|path| (*path, self.version(path)))
            .collect()
    }

    /// Nothing older than these is to be seen any more.
    fn invalidated(&mut self, versions: Versions) {
        for (path, version) in versions {
            let floor = self.floors.entry(path).or_default();
            *floor = version.max(*floor);
        }
    }

    fn floor(&self, path: &str) -> usize {
        self.floors.get(path).copied().unwrap_or_default()
    }

    /// Whether a version was still current when the oldest answer was made that may be used at
    /// `moment`.
    fn is_recent(&self, path: &str, version: usize, moment: u64) -> bool {
        let replaced = self
            .history
            .get(path)
            .and_then(|history| history.get(version));
        replaced.is_none_or(|at| moment.saturating_sub(*at) < LIFETIME + STALE_WINDOW)
    }
}

fn decoded(path: &str) -> &'static str {
    let path = path.replace("%20", " ").replace("%31", "1");
    let known = ITEMS.into_iter().chain([LIST]);
    known
        .into_iter()
        .find(|known| *known == path)
        .expect("a path of the model")
}

fn handler(data: &Arc<Mutex<Data>>) -> Origin {
    let data = Arc::clone(data);
    Origin::new(move |call: &Call| {
        let path = decoded(call.path());
        let mut data = data.lock();
        if !["GET", "HEAD"].contains(&call.head.method.as_str()) {
            if call.header("x-refused") == "1" {
                return status(409, &[], "refused");
            }
            data.change(path);
            let made = data.versions(&[path, LIST]);
            let number = call.header("x-number").parse().expect("a number");
            data.writes.insert(number, made);
        }
        let tag = format!("\"{}-{}\"", call.header("x"), data.version(path));
        let fields = [("vary", "x"), ("etag", &*tag)];
        if call
            .header("if-none-match")
            .split(", ")
            .any(|known| known == tag)
        {
            return status(304, &fields, "");
        }
        let query = call.head.uri.query().unwrap_or_default();
        response(
            &fields,
            format!("{path}|{query}|{}|{}", call.header("x"), data.version(path)),
        )
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// Begins a read, and polls it so often.
    Read {
        uri: &'static str,
        x: &'static str,
        polls: usize,
    },
    /// Begins a write, and polls it so often.
    Write {
        method: &'static str,
        uri: &'static str,
        refused: bool,
        polls: usize,
    },
    /// Goes on with what was begun, in turn.
    Poll {
        polls: usize,
    },
    /// Ends all that was begun.
    FinishAll,
    /// Drops what was begun first.
    Abandon,
    /// Changes an item behind the handler's back, and says so.
    Invalidate {
        item: usize,
        by: usize,
    },
    /// Changes an item behind the handler's back.
    Change {
        item: usize,
    },
    Advance {
        seconds: u64,
    },
    Break {
        operation: Operation,
        fault: Fault,
    },
    Recover,
    HandlerFails {
        fails: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let uri = prop_oneof![
        4 => Just("/item/1"),
        4 => Just("/list"),
        1 => prop::sample::select(vec!["/item/%31", "/item/1?q=1", "/item/a%20b", "/list?q=2"]),
    ];
    let written = prop_oneof![
        2 => Just("/item/1"),
        1 => prop::sample::select(vec!["/item/%31?x", "/item/a%20b"]),
    ];
    let x = prop_oneof![4 => Just("1"), 1 => Just("2")];
    let method = prop::sample::select(vec!["PUT", "POST", "PATCH", "DELETE", "MERGE"]);
    let fault = prop::sample::select(vec![Fault::Fails(ErrorKind::Timeout), Fault::LosesAnswer]);
    let operation = prop_oneof![
        1 => prop::sample::select(Operation::ALL.to_vec()),
        1 => Just(Operation::Invalidate),
    ];
    let polls = prop_oneof![1 => 1_usize..20, 2 => Just(200)];
    prop_oneof![
        14 => (uri, x, polls.clone()).prop_map(|(uri, x, polls)| Step::Read { uri, x, polls }),
        4 => (method, written, any::<bool>(), polls.clone()).prop_map(|(method, uri, refused, polls)| {
            Step::Write { method, uri, refused, polls }
        }),
        3 => polls.prop_map(|polls| Step::Poll { polls }),
        1 => Just(Step::FinishAll),
        1 => Just(Step::Abandon),
        3 => (0..ITEMS.len(), 0..5_usize).prop_map(|(item, by)| Step::Invalidate { item, by }),
        1 => (0..ITEMS.len()).prop_map(|item| Step::Change { item }),
        3 => (0..12_u64).prop_map(|seconds| Step::Advance { seconds }),
        2 => (operation, fault).prop_map(|(operation, fault)| Step::Break { operation, fault }),
        1 => Just(Step::Recover),
        1 => any::<bool>().prop_map(|fails| Step::HandlerFails { fails }),
    ]
}

/// A request under way.
struct Exchange<'c> {
    path: &'static str,
    uri: &'static str,
    x: &'static str,
    /// The number of a write.
    write: Option<usize>,
    /// What held when it began.
    floor: usize,
    began: u64,
    answer: Pin<Box<dyn Future<Output = Result<Answer, Broken>> + 'c>>,
}

struct World<'c> {
    cache: &'c Cache,
    store: &'c Double,
    data: Arc<Mutex<Data>>,
    under_way: Vec<Exchange<'c>>,
    writes: usize,
}

impl<'c> World<'c> {
    fn begin(
        &mut self,
        method: &str,
        uri: &'static str,
        fields: &[(&str, &'static str)],
        polls: usize,
    ) {
        let cache = self.cache;
        let path = decoded(uri.split('?').next().unwrap_or(uri));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let write = (method != Method::GET).then_some(self.writes);
        let mut request = request(method, uri, fields);
        request.headers_mut().insert("x-number", self.writes.into());
        self.writes += 1;
        let data = self.data.lock();
        self.under_way.insert(
            0,
            Exchange {
                path,
                uri,
                x: fields[0].1,
                write,
                floor: data.floor(path),
                began: data.now,
                answer: Box::pin(async { Ok(Answer::read(cache.send(request).await?).await) }),
            },
        );
        drop(data);
        self.poll(0, polls);
    }

    /// Polls one of the requests under way so often, unless it ends before.
    fn poll(&mut self, place: usize, polls: usize) {
        let Some(exchange) = self.under_way.get_mut(place) else {
            return;
        };
        for _ in 0..polls {
            let mut context = Context::from_waker(Waker::noop());
            if let std::task::Poll::Ready(answer) = exchange.answer.as_mut().poll(&mut context) {
                let ended = self.under_way.remove(place);
                return self.check(&ended, answer);
            }
        }
    }

    fn check(&self, exchange: &Exchange<'_>, answer: Result<Answer, Broken>) {
        if let Some(number) = exchange.write {
            return self.written(number);
        }
        // The handler failed.
        let Ok(answer) = answer else { return };
        let data = self.data.lock();
        let parts: Vec<&str> = answer.text().split('|').collect();
        let [path, query, x, version] = parts[..] else {
            panic!("{answer:?}");
        };
        let asked_query = exchange.uri.split_once('?').map_or("", |(_, query)| query);
        assert_eq!(
            (path, query, x),
            (exchange.path, asked_query, exchange.x),
            "{answer:?}"
        );
        let version: usize = version.parse().expect("a version");
        assert!(
            version >= exchange.floor,
            "older than {}: {answer:?}",
            exchange.floor
        );
        // It may have been decided on long before it was polled to its end.
        let is_recent = data.is_recent(path, version, exchange.began);
        assert!(is_recent, "too old: {answer:?}");
    }

    /// Notes that what a write has made, if anything, is known to its client.
    fn written(&self, number: usize) {
        let mut data = self.data.lock();
        let made = data.writes.remove(&number).unwrap_or_default();
        data.invalidated(made);
    }

    /// Drops what was begun first. What a write has made counts though its client has gone.
    fn abandon(&mut self) {
        if let Some(number) = self.under_way.pop().and_then(|exchange| exchange.write) {
            self.written(number);
        }
    }

    async fn invalidate(&mut self, item: usize, by: usize) {
        let path = ITEMS[item];
        let mut reached = vec![path];
        let id = path.trim_start_matches("/item/");
        let target = match by {
            0 => Target::uri(path.replace(' ', "%20")),
            1 => Target::tag(format!("item:{id}")),
            2 => Target::pattern("/item/{id}").bind("id", id),
            3 => {
                reached = ITEMS.to_vec();
                Target::pattern("/item/{id}")
            }
            _ => {
                reached = ITEMS.into_iter().chain([LIST]).collect();
                Target::everything()
            }
        };
        let handle = self.cache.handle();
        self.data.lock().change(path);
        // Applied or queued: this process refuses what is older in any case.
        let _ = handle
            .invalidate(target)
            .await
            .expect("the target is right");
        let mut data = self.data.lock();
        let versions = data.versions(&reached);
        data.invalidated(versions);
    }

    async fn go(&mut self, step: &Step) {
        match *step {
            Step::Read { uri, x, polls } => self.begin("GET", uri, &[("x", x)], polls),
            Step::Write {
                method,
                uri,
                refused,
                polls,
            } => {
                let refused = if refused { "1" } else { "" };
                self.begin(method, uri, &[("x", ""), ("x-refused", refused)], polls);
            }
            Step::Poll { polls } => {
                let last = self.under_way.len().saturating_sub(1);
                self.poll(last, polls);
            }
            Step::FinishAll => self.finish().await,
            Step::Abandon => self.abandon(),
            Step::Invalidate { item, by } => self.invalidate(item, by).await,
            Step::Change { item } => self.data.lock().change(ITEMS[item]),
            Step::Advance { seconds } => {
                self.data.lock().now += seconds;
                self.cache.advance(seconds);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            Step::Break { operation, fault } => {
                self.store.break_down(operation, fault);
            }
            Step::Recover => self.store.recover(),
            Step::HandlerFails { fails: true } => self.cache.origin.fail(),
            Step::HandlerFails { fails: false } => self.cache.origin.recover(),
        }
        settle().await;
    }

    async fn finish(&mut self) {
        while let Some(mut exchange) = self.under_way.pop() {
            let answer = exchange.answer.as_mut().await;
            self.check(&exchange, answer);
        }
    }
}

async fn live(steps: Vec<Step>, waits: bool) {
    let data = Arc::new(Mutex::new(Data::default()));
    let store = Double::new();
    let origin = handler(&data);
    origin.dawdle(3);
    let cache = match waits {
        true => Cache::over(CacheLayer::new(store.clone()), &origin, rules()),
        false => Cache::new(&origin, rules()),
    };
    let mut world = World {
        cache: &cache,
        store: &store,
        data,
        under_way: Vec::new(),
        writes: 0,
    };
    for step in &steps {
        world.go(step).await;
    }
    world.finish().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_answer_is_older_than_an_acknowledged_invalidation(
        steps in prop::collection::vec(step(), 1..100),
        waits: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(live(steps, waits));
    }
}
