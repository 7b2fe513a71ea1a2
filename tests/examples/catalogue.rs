//! `examples/axum` answers what the README shows.

use std::collections::BTreeMap;
use std::process::Command;

use crate::client::{Answer, Client};
use crate::example::{Running, program};

/// A command that the README shows, and what it shows of the answer.
struct Shown<'a> {
    command: &'a str,
    answer: &'a str,
}

#[tokio::test]
async fn the_catalogue_answers_what_the_readme_shows() {
    let mut command = Command::new(program("axum"));
    command.args(["--listen", "127.0.0.1:0"]);
    let products = tempfile::tempdir().unwrap();
    command.env_clear().env("TMPDIR", products.path());
    let catalogue = Running::start(&mut command);
    let client = Client::of(catalogue.address);

    let shown = shown(include_str!("../../README.md"));
    assert_eq!(
        shown.len(),
        7,
        "a miss, a hit, a 304, a change, a miss, and two that are private"
    );
    for Shown { command, answer } in shown {
        let came = run(&client, command).await;
        let (head, text) = answer.split_once("\n\n").unwrap_or((answer, ""));
        let (status, fields) = head.split_once('\n').unwrap();
        assert_eq!(format!("HTTP/1.1 {}", came.status), status, "{command}");
        let fields = fields.lines().map(|line| line.split_once(": ").unwrap());
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(steady(came.fields), steady(fields.collect()), "{command}");
        assert_eq!(came.text, text, "{command}");
    }
}

/// The commands with `curl -i`, in their order.
fn shown(readme: &str) -> Vec<Shown<'_>> {
    let blocks = readme.split("```console\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap());
    blocks
        .flat_map(|block| block.split("$ curl -i ").skip(1))
        .map(|text| {
            let (command, answer) = text.split_once('\n').unwrap();
            Shown {
                command,
                answer: answer.trim_end(),
            }
        })
        .collect()
}

/// Asks what curl would with these arguments.
async fn run(client: &Client, command: &str) -> Answer {
    let (mut method, mut path, mut fields, mut content) = ("GET", "", Vec::new(), "");
    let mut words = words(command).into_iter();
    while let Some(word) = words.next() {
        match word {
            "-X" => method = words.next().unwrap(),
            "-H" => fields.push(words.next().unwrap().split_once(": ").unwrap()),
            "--json" => {
                content = words.next().unwrap();
                fields.push(("content-type", "application/json"));
            }
            url => path = url.strip_prefix("localhost:3000").unwrap(),
        }
    }
    client.ask(method, path, &fields, content).await
}

/// The words of a command, of which those in single quotes may hold blanks.
fn words(command: &str) -> Vec<&str> {
    let parts = command.split('\'').enumerate();
    parts
        .flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        })
        .collect()
}

/// Leaves out what the time changes.
fn steady(mut fields: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for (name, value) in &mut fields {
        match name.as_str() {
            "date" | "age" => value.clear(),
            "cache-status" => *value = value.split("; ttl=").next().unwrap().to_owned(),
            _ => {}
        }
    }
    fields
}
