//! The command line.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::harness::{Origin, Proxy, is_hit, program, text};

#[test]
fn the_presets_differ_over_cookies_that_are_set() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nCache-Control: max-age=60\r\n\
         Content-Length: 2\r\n\r\nok",
    );
    for (preset, stores) in [("rfc9111", true), ("guarded", false)] {
        let proxy = Proxy::start(origin.address, &["--preset", preset]);
        proxy.get("/");
        assert_eq!(is_hit(&proxy.get("/")), stores, "{preset}");
    }
}

#[test]
fn mistakes_on_the_command_line_are_explained_and_end_with_2() {
    let enough = ["--listen", "127.0.0.1:0", "--origin", "http://a"];
    for (given, options, complaint) in [
        (&[][..], &[][..], "--listen is missing"),
        (&enough[..2], &[], "--origin is missing"),
        (&enough, &["--listen"], "--listen lacks a value"),
        (
            &enough,
            &["--listen", "here"],
            "--listen here: expected HOST:PORT",
        ),
        (
            &enough,
            &["--origin", "https://a"],
            "--origin https://a: expected http://HOST[:PORT]",
        ),
        (
            &enough,
            &["--origin", "http://a/b"],
            "--origin http://a/b: expected http://HOST[:PORT]",
        ),
        (
            &enough,
            &["--preset", "none"],
            "--preset none: expected rfc9111 or guarded",
        ),
        (
            &enough,
            &["--store", "disk"],
            "--store disk: expected memory or [tiered+]redis://HOST:PORT/DB",
        ),
        (
            &enough,
            &["--store", "tiered+memory"],
            "--store tiered+memory: expected memory or [tiered+]redis://HOST:PORT/DB",
        ),
        (
            &enough,
            &["--threads", "0"],
            "--threads 0: expected a number from 1",
        ),
        (&enough, &["--color", "red"], "--color is not an option"),
    ] {
        let output = Command::new(program())
            .args(given)
            .args(options)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(
            said.lines().next(),
            Some(&*format!("reverse_proxy: {complaint}"))
        );
        assert!(said.contains("usage: "), "{said}");
    }
}

#[test]
fn a_listening_address_in_use_is_no_mistake_of_the_command_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let status = Command::new(program())
        .args(["--listen", &listen, "--origin", "http://127.0.0.1:1"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
