//! Plays the exchanges that `exchanges.txt` writes down, with both presets.

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use httpdate::fmt_http_date;

use crate::harness::{Origin, Proxy, content, field, fields, latin1};
use crate::redis_server::RedisServer;

/// Long enough for what has a lifetime of one second. Time is real here, so the cases, which share
/// nothing but the proxy, all wait at once.
const WAIT: Duration = Duration::from_millis(2100);

/// Between the starts of two cases: a store that all ask at once counts as overloaded.
const INTERVAL: Duration = Duration::from_millis(20);

#[test]
fn exchanges_are_as_rfc9111_has_them() {
    play("rfc9111", "memory");
}

#[test]
fn exchanges_through_redis_are_the_same() {
    let redis = RedisServer::start();
    play("rfc9111", &redis.url());
}

#[test]
fn exchanges_through_both_stores_are_the_same() {
    let redis = RedisServer::start();
    play("rfc9111", &format!("tiered+{}", redis.url()));
}

#[test]
fn exchanges_are_as_guarded_has_them() {
    play("guarded", "memory");
}

fn play(preset: &str, store: &str) {
    let cases: Arc<[Case]> = read(include_str!("exchanges.txt"), preset).into();
    let scripts = Arc::clone(&cases);
    let origin = Origin::new(move |request| answer(&scripts, request));
    let proxy = Proxy::start(origin.address, &["--preset", preset, "--store", store]);
    let failures: Vec<String> = thread::scope(|scope| {
        let players: Vec<_> = cases
            .iter()
            .map(|case| {
                thread::sleep(INTERVAL);
                scope.spawn(|| case.play(&proxy, &origin).err())
            })
            .collect();
        players
            .into_iter()
            .filter_map(|player| player.join().unwrap())
            .collect()
    });
    assert!(
        failures.is_empty(),
        "{preset}: {} of {} cases fail:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// Steps on a URI of their own.
#[derive(Debug)]
struct Case {
    title: String,
    uri: String,
    steps: Vec<Step>,
}

/// One exchange of the client, or a pause.
#[derive(Debug, Default)]
struct Step {
    request: Line,
    answer: Line,
    seen: Option<Line>,
    got: Option<Line>,
    waits: bool,
}

/// A message: the words of its first line, its field lines and its content.
#[derive(Debug, Default)]
struct Line {
    words: Vec<String>,
    fields: Vec<String>,
    content: Option<String>,
}

/// Reads the cases for a preset.
fn read(text: &str, preset: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.starts_with('#')) {
        let (title, mut script) = block.split_once('\n').unwrap();
        let mut values = vec![""];
        if let Some((with, rest)) = script.split_once('\n')
            && let Some(with) = with.strip_prefix("  with ")
        {
            values = with.split(" || ").collect();
            script = rest;
        }
        let mark = title.split(['[', ']']).nth(1);
        if mark.is_none_or(|mark| mark == preset) {
            for value in values {
                let uri = format!("/{}", cases.len());
                cases.push(Case::read(title, uri, script, value));
            }
        }
    }
    cases
}

impl Case {
    fn read(title: &str, uri: String, script: &str, value: &str) -> Self {
        let script = script.replace("{}", value).replace("{uri}", &uri);
        let parts = value.split(" | ").enumerate();
        let script = parts.fold(script, |script, (place, part)| {
            script.replace(&format!("{{{place}}}"), part)
        });
        let mut steps = Vec::<Step>::new();
        for line in script.lines() {
            let (mark, rest) = line.trim_start().split_once(' ').unwrap_or((line, ""));
            let (step, line) = (steps.last_mut(), Line::read(rest));
            match (mark, step) {
                (">", _) => steps.push(Step {
                    request: line,
                    ..Step::default()
                }),
                ("<", Some(step)) => step.answer = line,
                ("^", Some(step)) => step.seen = Some(line),
                ("=", Some(step)) => step.got = Some(line),
                (_, Some(step)) if line.words.is_empty() => step.waits = true,
                _ => panic!("{title}: {line:?}"),
            }
        }
        let title = format!("{title} {value}");
        Self { title, uri, steps }
    }

    /// Sends the requests, and says what was not as it should be.
    fn play(&self, proxy: &Proxy, origin: &Origin) -> Result<(), String> {
        let mut failures = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            let response = proxy.send(latin1(&self.request(number)));
            let asked = !self.asked(origin, number).is_empty();
            if let Some(failure) = step.got.as_ref().and_then(|got| {
                let whence = whence(&response, number, asked);
                got.differs_from(whence, &response)
            }) {
                writeln!(failures, "step {number}: {failure} in\n{response}").unwrap();
            }
            if step.waits {
                thread::sleep(WAIT);
            }
        }
        for (number, step) in self.steps.iter().enumerate() {
            let requests = self.asked(origin, number);
            if let Some(failure) = step.seen.as_ref().and_then(|seen| match &requests[..] {
                [] => (seen.words != ["nothing"]).then(|| "the origin is not asked".into()),
                [request] => seen.differs_from(request.split(' ').next().unwrap(), request),
                _ => Some("the origin is asked again".into()),
            }) {
                writeln!(failures, "step {number}: {failure} in\n{requests:?}").unwrap();
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(format!("* {}\n{failures}", self.title)),
        }
    }

    fn request(&self, number: usize) -> String {
        let Line {
            words,
            fields,
            content,
        } = &self.steps[number].request;
        let (uri, target) = (&self.uri, words.get(1).map_or("", String::as_str));
        let mut request = format!("{} {uri}{target} HTTP/1.1\r\n", words[0]);
        request += &format!("Host: a.example\r\nConnection: close\r\nStep: {number}\r\n");
        if let Some(content) = content {
            request += &format!("Content-Length: {}\r\n", content.len());
        }
        for field in fields {
            request += &format!("{}\r\n", dated(field));
        }
        request + "\r\n" + content.as_deref().unwrap_or_default()
    }

    /// Returns what has reached the origin of a step.
    fn asked(&self, origin: &Origin, number: usize) -> Vec<String> {
        let mut requests = origin.requests();
        requests.retain(|request| {
            let target = request.split([' ', '?']).nth(1).unwrap();
            let case = target.get(..self.uri.len()) == Some(&self.uri)
                && matches!(target.as_bytes().get(self.uri.len()), None | Some(b'/'));
            case && field(request, "step").unwrap().parse() == Ok(number)
        });
        requests
    }
}

/// Tells where an answer comes from: each that the origin gives says to which step.
fn whence(response: &str, number: usize, asked: bool) -> &'static str {
    let step = field(response, "step").map(|step| step.parse::<usize>().unwrap());
    match step {
        Some(step) if step < number => "stored",
        Some(_) => "fetched",
        None if asked && response.starts_with("HTTP/1.1 304") => "fetched",
        None if response.starts_with("HTTP/1.1 304") => "stored",
        None => "generated",
    }
}

/// Makes the origin's answer to a request.
fn answer(cases: &[Case], request: &str) -> Vec<u8> {
    let uri = request.split(' ').nth(1).unwrap();
    let case = uri.split(['/', '?']).nth(1).unwrap();
    let step = field(request, "step").unwrap();
    let line = &cases[case.parse::<usize>().unwrap()].steps[step.parse::<usize>().unwrap()].answer;
    let status = line.words.first().map_or("200", String::as_str);
    if status == "hangs" {
        return Vec::new();
    }
    let content = line.content.as_deref().unwrap_or("content");
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nStep: {step}\r\n");
    for field in &line.fields {
        head += &format!("{}\r\n", dated(field));
    }
    let has_content = !matches!(status, "204" | "304");
    if has_content && !head.contains("\r\nContent-Length:") && !head.contains("\r\nTransfer-") {
        head += &format!("Content-Length: {}\r\n", content.len());
    }
    head += "\r\n";
    if has_content && !request.starts_with("HEAD ") {
        head += content;
    }
    latin1(&head)
}

/// Writes the date where a field has `@` and the seconds from now.
fn dated(line: &str) -> String {
    let Some((name, offset)) = line.split_once(": @") else {
        return line.into();
    };
    let offset: i64 = offset.parse().unwrap();
    let distance = Duration::from_secs(offset.unsigned_abs());
    let now = SystemTime::now();
    let date = match offset {
        0.. => now + distance,
        _ => now - distance,
    };
    format!("{name}: {}", fmt_http_date(date))
}

impl Line {
    fn read(line: &str) -> Self {
        let (line, content) = match line.split_once(" || ") {
            Some((line, content)) => (line, Some(content.into())),
            None => (line, None),
        };
        let mut parts = line.split(" | ");
        let words = parts.next().unwrap_or_default();
        Self {
            words: words.split_whitespace().map(String::from).collect(),
            fields: parts.map(String::from).collect(),
            content,
        }
    }

    /// Says in what a message is not as expected.
    fn differs_from(&self, first: &str, message: &str) -> Option<String> {
        let status = message.split(' ').nth(1).unwrap();
        let expected = self.words.get(1).map_or("200", String::as_str);
        if self.words[0] != first || message.starts_with("HTTP") && status != expected {
            return Some(format!("{first} {status} instead of {:?}", self.words));
        }
        let shown = self.content.as_deref().unwrap_or(content(message));
        if content(message) != shown {
            return Some(format!("not the content {shown:?}"));
        }
        let differs = |field: &&String| !holds(field, message);
        self.fields.iter().find(differs).cloned()
    }
}

/// Whether a message has a field as expected.
fn holds(expected: &str, message: &str) -> bool {
    let lines = |name: &str| fields(message, &name.to_ascii_lowercase()).collect::<Vec<_>>();
    if let Some((name, value)) = expected.split_once(": ") {
        lines(name).join(", ") == value
    } else if let Some((name, least)) = expected.split_once(" above ") {
        let number = |text: &str| text.parse::<u64>().unwrap();
        lines(name)
            .first()
            .is_some_and(|value| number(value) > number(least))
    } else if let Some(name) = expected.strip_prefix("no ") {
        lines(name).is_empty()
    } else {
        !lines(expected.trim_end_matches(':')).is_empty()
    }
}
