//! Asking the origin whether stored responses may still be used, and what its
//! answer does to them (RFC 9111 §4.3).

use http::StatusCode;
use http::header::{
    AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};

use super::date::HttpDate;
use super::etag::{self, EntityTag};
use super::fields;

/// A stored response that the origin is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nominee<'a> {
    etag: Option<&'a HeaderValue>,
    last_modified: Option<&'a HeaderValue>,
    date: HttpDate,
}

impl<'a> Nominee<'a> {
    /// Nominates a stored response by the validators its origin gave it;
    /// `None` if the origin cannot be asked about it.
    ///
    /// A condition about a response other than 2xx means nothing (RFC 9110
    /// §13.2.1). A part is to be nominated only where it satisfies the request
    /// (RFC 9111 §4.3.2).
    pub(crate) fn new(
        status: StatusCode,
        etag: Option<&'a HeaderValue>,
        last_modified: Option<&'a HeaderValue>,
        date: HttpDate,
    ) -> Option<Self> {
        let has_validator = etag.is_some() || last_modified.is_some();
        (status.is_success() && has_validator).then_some(Self {
            etag,
            last_modified,
            date,
        })
    }

    /// Nominates it for a request that does not select it: by a strong tag
    /// alone, because variants may share weak tags and dates (RFC 9110 §8.8.1);
    /// `None` without one.
    pub(crate) fn of_other_variant(self) -> Option<Self> {
        let is_strong = self.tag().is_some_and(EntityTag::is_strong);
        is_strong.then_some(Self {
            last_modified: None,
            ..self
        })
    }

    fn tag(&self) -> Option<EntityTag<'a>> {
        self.etag.map(|etag| EntityTag::new(etag.as_bytes()))
    }
}

/// Makes a request ask about the nominees: their tags join the client's, the
/// date of a single one takes the place of the client's (RFC 9111 §4.3.1).
///
/// The answer is to be a whole response, if it is one, so no range is asked
/// for.
pub(crate) fn conditional(request: &mut HeaderMap, nominees: &[Nominee<'_>]) {
    if nominees.is_empty() {
        return;
    }
    request.remove(RANGE);
    request.remove(IF_RANGE);
    // The client's date is about its own copy: kept, it could win over no
    // date of ours, and a 304 would not be about the nominees.
    request.remove(IF_MODIFIED_SINCE);
    if let [
        Nominee {
            last_modified: Some(date),
            ..
        },
    ] = nominees
    {
        request.insert(IF_MODIFIED_SINCE, (*date).clone());
    }
    // `*` matches whatever there is, also what differs from the nominees.
    if etag::any_weak_match(&request.get_all(IF_NONE_MATCH), None) {
        request.remove(IF_NONE_MATCH);
    }
    if let Some(tags) = union(request, nominees) {
        request.insert(IF_NONE_MATCH, tags);
    }
}

/// Returns the nominees' tags and the client's as one line: many handlers
/// read no other.
fn union(request: &HeaderMap, nominees: &[Nominee<'_>]) -> Option<HeaderValue> {
    let mut lines: Vec<&[u8]> = Vec::new();
    for tag in nominees.iter().filter_map(|nominee| nominee.etag) {
        let tag = tag.as_bytes();
        if !lines.contains(&tag) && !asks_about(request, tag) {
            lines.push(tag);
        }
    }
    lines.extend(
        request
            .get_all(IF_NONE_MATCH)
            .iter()
            .map(HeaderValue::as_bytes),
    );
    if lines.is_empty() {
        return None;
    }
    let union = HeaderValue::from_bytes(&lines.join(&b", "[..]));
    Some(union.expect("field values joined by a comma are one"))
}

/// Whether a request's `If-None-Match` names the response with this tag.
fn asks_about(request: &HeaderMap, tag: &[u8]) -> bool {
    etag::any_weak_match(&request.get_all(IF_NONE_MATCH), Some(tag))
}

/// What a 304 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotModified {
    /// The nominee at this place: freshen it and answer from it.
    Nominee(usize),
    /// The client's own copy alone: pass the 304 on.
    Client,
    /// Nothing that is known here: repeat the request without conditions.
    Unknown,
}

/// Finds out what a 304 to a [`conditional`] request is about
/// (RFC 9111 §4.3.4); `client` holds the fields of the client's request.
pub(crate) fn identify(
    not_modified: &HeaderMap,
    nominees: &[Nominee<'_>],
    client: &HeaderMap,
) -> NotModified {
    if let Some(tag) = not_modified.get(ETAG).map(HeaderValue::as_bytes) {
        let named = EntityTag::new(tag);
        let is_named = |tag: EntityTag<'_>| match named.is_strong() {
            true => named.strong_eq(tag),
            false => named.weak_eq(tag),
        };
        let nominees = nominees.iter().enumerate();
        let named = nominees.filter(|(_, nominee)| nominee.tag().is_some_and(is_named));
        return match named.max_by_key(|(_, nominee)| nominee.date) {
            Some((place, _)) => NotModified::Nominee(place),
            None if asks_about(client, tag) => NotModified::Client,
            None => NotModified::Unknown,
        };
    }
    // Several are variants, which only tags tell apart.
    let [only] = nominees else {
        return NotModified::Unknown;
    };
    let is_about_it = match (not_modified.get(LAST_MODIFIED), only.last_modified) {
        (Some(date), Some(own)) => date == own,
        // Bare 304s are common. One is about the only nominee unless it may
        // be about another copy that the client holds.
        _ => adds_nothing(client, only),
    };
    match is_about_it {
        true => NotModified::Nominee(0),
        false => NotModified::Unknown,
    }
}

/// Whether the client asked about no tag but the nominee's.
fn adds_nothing(client: &HeaderMap, nominee: &Nominee<'_>) -> bool {
    client
        .get_all(IF_NONE_MATCH)
        .iter()
        .flat_map(|line| etag::members(line.as_bytes()))
        .all(|tag| {
            tag == EntityTag::Malformed(b"*") || nominee.tag().is_some_and(|own| own.weak_eq(tag))
        })
}

/// Returns the fields of a stored response after a 304, or a 200 to HEAD, has
/// confirmed it (RFC 9111 §3.2).
///
/// What the answer carries replaces what is stored, line for line; the rest
/// stays. `Age` and `Date` are those of the answer or none, so that terms read
/// from the result count from this exchange. [`keep_dated`] puts a missing
/// `Date` in.
///
/// [`keep_dated`]: super::storing::keep_dated
pub(crate) fn freshen(stored: &HeaderMap, answer: &HeaderMap) -> HeaderMap {
    let mut answer = answer.clone();
    fields::strip(&mut answer);
    let mut fresh = stored.clone();
    fresh.remove(AGE);
    fresh.remove(DATE);
    for name in answer.keys() {
        // These describe the content that is stored, which the answer has not.
        if *name == CONTENT_LENGTH || *name == CONTENT_RANGE {
            continue;
        }
        fresh.remove(name);
        for line in answer.get_all(name) {
            fresh.append(name, line.clone());
        }
    }
    fresh
}

/// What an answer to HEAD does to a stored response to GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterHead {
    /// [`freshen`] it.
    Freshen,
    /// It is stale from now on.
    Expire,
    /// Nothing.
    Keep,
}

/// Judges a stored response to GET, with content of this length, by an answer
/// to HEAD (RFC 9111 §4.3.5).
pub(crate) fn after_head(
    stored: &HeaderMap,
    length: u64,
    status: StatusCode,
    answer: &HeaderMap,
) -> AfterHead {
    let agrees = |name, own: Option<&HeaderValue>| {
        let carried: Option<&HeaderValue> = answer.get(name);
        carried.is_none() || carried == own
    };
    let validates = |fields: &HeaderMap| {
        [ETAG, LAST_MODIFIED]
            .iter()
            .any(|name| fields.contains_key(name))
    };
    // That nothing contradicts it confirms nothing; that the length agrees does, where there is no
    // more to compare.
    let is_confirmed =
        || validates(answer) || answer.contains_key(CONTENT_LENGTH) && !validates(stored);
    match status {
        StatusCode::OK
            if agrees(ETAG, stored.get(ETAG))
                && agrees(LAST_MODIFIED, stored.get(LAST_MODIFIED))
                && agrees(CONTENT_LENGTH, Some(&HeaderValue::from(length))) =>
        {
            match is_confirmed() {
                true => AfterHead::Freshen,
                false => AfterHead::Keep,
            }
        }
        StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::GONE => AfterHead::Expire,
        _ => AfterHead::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fields::tests::headers;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

    type Field = (&'static str, &'static str);

    /// A stored response: its `ETag`, `Last-Modified` and `Date`.
    type Stored = (Option<&'static str>, Option<&'static str>, i64);

    const TAGGED: Stored = (Some("\"a\""), None, 0);
    const DATED: Stored = (None, Some(EARLIER), 0);

    fn with_nominees<T>(stored: &[Stored], test: impl FnOnce(&[Nominee<'_>]) -> T) -> T {
        let values: Vec<_> = stored
            .iter()
            .map(|(etag, date, at)| {
                (
                    etag.map(HeaderValue::from_static),
                    date.map(HeaderValue::from_static),
                    HttpDate(*at),
                )
            })
            .collect();
        let nominees: Vec<_> = values
            .iter()
            .filter_map(|(etag, date, at)| {
                Nominee::new(StatusCode::OK, etag.as_ref(), date.as_ref(), *at)
            })
            .collect();
        test(&nominees)
    }

    #[test]
    fn only_successes_with_a_validator_are_nominated() {
        let tag = HeaderValue::from_static("\"a\"");
        let nominee = |status, tag| Nominee::new(status, tag, None, HttpDate(0));
        assert!(nominee(StatusCode::OK, Some(&tag)).is_some());
        assert!(nominee(StatusCode::OK, None).is_none());
        assert!(nominee(StatusCode::NOT_FOUND, Some(&tag)).is_none());
    }

    #[test]
    fn another_variant_is_nominated_by_its_strong_tag_alone() {
        let asked = |stored| {
            with_nominees(&[stored], |nominees| {
                let other = nominees[0].of_other_variant()?;
                let mut request = HeaderMap::new();
                conditional(&mut request, &[other]);
                Some(request)
            })
        };
        let by_tag = headers(&[("if-none-match", "\"a\"")]);
        assert_eq!(asked((Some("\"a\""), Some(EARLIER), 0)), Some(by_tag));
        for stored in [
            DATED,
            (Some("W/\"a\""), Some(EARLIER), 0),
            (Some("a"), None, 0),
        ] {
            assert_eq!(asked(stored), None, "{stored:?}");
        }
    }

    #[test]
    fn conditions_are_added_to_the_clients_fields() {
        let none_match = |tags| ("if-none-match", tags);
        let since = |date| ("if-modified-since", date);
        #[rustfmt::skip]
        let table: &[(&[Stored], &[Field], &[Field])] = &[
            // ET4
            (&[], &[none_match("\"b\"")], &[none_match("\"b\"")]),
            (
                &[],
                &[none_match("*"), ("range", "bytes=0-")],
                &[none_match("*"), ("range", "bytes=0-")],
            ),
            // CR4, RQ1, ET2
            (&[TAGGED], &[("x", "y")], &[none_match("\"a\""), ("x", "y")]),
            (&[(Some("W/\"a\""), None, 0)], &[], &[none_match("W/\"a\"")]),
            (&[(Some("\"a\""), Some(EARLIER), 0)], &[], &[none_match("\"a\""), since(EARLIER)]),
            // ET3
            (&[(Some("a b"), None, 0)], &[], &[none_match("a b")]),
            // LM2
            (&[DATED], &[since(LATER)], &[since(EARLIER)]),
            (&[TAGGED], &[since(LATER)], &[none_match("\"a\"")]),
            // ET5
            (
                &[
                    TAGGED,
                    (Some("\"b\""), Some(EARLIER), 0),
                    (Some("\"a\""), None, 0),
                ],
                &[],
                &[none_match("\"a\", \"b\"")],
            ),
            (&[DATED, DATED], &[since(LATER)], &[]),
            // the union
            (&[TAGGED], &[none_match("\"b\"")], &[none_match("\"a\", \"b\"")]),
            (
                &[TAGGED],
                &[none_match("\"b\""), none_match("\"c\"")],
                &[none_match("\"a\", \"b\", \"c\"")],
            ),
            (&[TAGGED], &[none_match("\"b\", W/\"a\"")], &[none_match("\"b\", W/\"a\"")]),
            (&[TAGGED], &[none_match("*")], &[none_match("\"a\"")]),
            (&[DATED], &[none_match("\"b\"")], &[none_match("\"b\""), since(EARLIER)]),
            (&[DATED], &[none_match("*")], &[since(EARLIER)]),
            // ranges
            (&[TAGGED], &[("range", "bytes=0-1"), ("if-range", "\"b\"")], &[none_match("\"a\"")]),
        ];
        for (stored, client, expected) in table {
            let mut request = headers(client);
            with_nominees(stored, |nominees| conditional(&mut request, nominees));
            assert_eq!(request, headers(expected), "{stored:?} {client:?}");
        }
    }

    #[test]
    fn not_modified_names_the_nominee_it_is_about() {
        use NotModified::{Client, Nominee, Unknown};
        let weak = |at| (Some("W/\"a\""), None, at);
        let etag = |tag| ("etag", tag);
        let none_match = |tags| ("if-none-match", tags);
        #[rustfmt::skip]
        let table: &[(&[Field], &[Stored], &[Field], _)] = &[
            // U34
            (&[etag("\"a\"")], &[TAGGED], &[], Nominee(0)),
            (&[etag("\"b\"")], &[TAGGED], &[], Unknown),
            (&[etag("\"a\"")], &[weak(0)], &[], Unknown),
            (&[etag("\"b\""), ("last-modified", EARLIER)], &[DATED], &[], Unknown),
            // ET5
            (&[etag("\"b\"")], &[TAGGED, (Some("\"b\""), None, 0)], &[], Nominee(1)),
            (&[etag("\"a\"")], &[TAGGED, (Some("\"a\""), None, 1), weak(2)], &[], Nominee(1)),
            (&[etag("W/\"a\"")], &[weak(1), TAGGED, weak(0)], &[], Nominee(0)),
            // ET3
            (&[etag("a b")], &[(Some("a b"), None, 0)], &[], Nominee(0)),
            (&[etag("a b")], &[(Some("a  b"), None, 0)], &[], Unknown),
            // the client's own copy
            (&[etag("\"b\"")], &[TAGGED], &[none_match("\"c\", \"b\"")], Client),
            (&[etag("\"a\"")], &[TAGGED], &[none_match("\"a\"")], Nominee(0)),
            // by date
            (&[("last-modified", EARLIER)], &[DATED], &[], Nominee(0)),
            (&[("last-modified", LATER)], &[DATED], &[], Unknown),
            (&[("last-modified", LATER)], &[TAGGED], &[], Nominee(0)),
            (&[("last-modified", LATER)], &[TAGGED], &[none_match("\"b\"")], Unknown),
            // bare
            (&[], &[TAGGED], &[], Nominee(0)),
            (&[], &[DATED], &[], Nominee(0)),
            (&[], &[TAGGED, TAGGED], &[], Unknown),
            (&[], &[TAGGED], &[none_match("W/\"a\"")], Nominee(0)),
            (&[], &[TAGGED], &[none_match("*")], Nominee(0)),
            (&[], &[TAGGED], &[none_match("\"a\", \"b\"")], Unknown),
            (&[], &[DATED], &[none_match("\"a\"")], Unknown),
        ];
        for (answer, stored, client, expected) in table {
            let found = with_nominees(stored, |nominees| {
                identify(&headers(answer), nominees, &headers(client))
            });
            assert_eq!(found, *expected, "{answer:?} {stored:?} {client:?}");
        }
    }

    #[test]
    fn answer_replaces_the_fields_it_carries_and_no_others() {
        let stored = headers(&[
            ("date", EARLIER),
            ("age", "7"),
            ("cache-control", "max-age=1"),
            ("content-length", "10"),
            ("content-range", "bytes 0-9/20"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-kept", "1"),
            ("x-kept", "2"),
            ("x-hop", "kept"),
        ]);
        let answer = headers(&[
            ("date", LATER),
            ("cache-control", "max-age=2"),
            ("cache-control", "public"),
            ("connection", "x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "gone"),
            ("content-length", "0"),
            ("content-range", "bytes 0-1/2"),
            ("content-type", "text/html"),
            ("set-cookie", "c=3"),
            ("x-new", "1"),
        ]);
        let expected = headers(&[
            // U32
            ("date", LATER),
            ("cache-control", "max-age=2"),
            ("cache-control", "public"),
            ("x-new", "1"),
            // U33
            ("content-length", "10"),
            ("content-range", "bytes 0-9/20"),
            // U34
            ("content-type", "text/html"),
            ("set-cookie", "c=3"),
            // U31
            ("x-kept", "1"),
            ("x-kept", "2"),
            ("x-hop", "kept"),
        ]);
        assert_eq!(freshen(&stored, &answer), expected);
    }

    #[test]
    fn age_restarts_with_the_exchange_that_confirmed_the_response() {
        let stored = headers(&[("date", EARLIER), ("age", "7")]);
        assert_eq!(freshen(&stored, &HeaderMap::new()), HeaderMap::new());
        let answer = headers(&[("age", "3")]);
        assert_eq!(freshen(&stored, &answer), answer);
    }

    #[test]
    fn answer_to_head_freshens_what_it_agrees_with_and_expires_the_rest() {
        use AfterHead::{Expire, Freshen, Keep};
        let tag = ("etag", "\"a\"");
        let date = ("last-modified", EARLIER);
        let stored = headers(&[tag, date]);
        let table: &[(u16, &[Field], _)] = &[
            // UH2
            (200, &[tag, date, ("content-length", "10")], Freshen),
            (200, &[tag], Freshen),
            (200, &[date], Freshen),
            (200, &[], Keep),
            (200, &[("content-length", "10")], Keep),
            (200, &[("etag", "\"b\"")], Expire),
            (200, &[("etag", "W/\"a\"")], Expire),
            (200, &[tag, ("last-modified", LATER)], Expire),
            (200, &[tag, ("content-length", "11")], Expire),
            // UH3
            (404, &[], Expire),
            (410, &[tag], Expire),
            (204, &[], Keep),
            (304, &[], Keep),
            (500, &[("etag", "\"b\"")], Keep),
        ];
        for (status, answer, expected) in table {
            let status = StatusCode::from_u16(*status).unwrap();
            let found = after_head(&stored, 10, status, &headers(answer));
            assert_eq!(found, *expected, "{status} {answer:?}");
        }
        let untagged: &[(&[Field], _)] = &[
            (&[tag], Expire),
            (&[("content-length", "10")], Freshen),
            (&[("content-length", "11")], Expire),
            (&[], Keep),
        ];
        for (answer, expected) in untagged {
            let found = after_head(&HeaderMap::new(), 10, StatusCode::OK, &headers(answer));
            assert_eq!(found, *expected, "{answer:?}");
        }
    }
}
