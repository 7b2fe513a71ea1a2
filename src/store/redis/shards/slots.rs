//! What a server of a cluster says about who has which slots.

use redis::Value;

use super::slot::SLOTS;
use crate::store::redis::connection::Endpoint;

/// The primaries and their slots, as one server sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// In order and without overlap.
    pub(super) ranges: Vec<Range>,
    /// Who else is of the cluster, each once.
    pub(super) replicas: Vec<Endpoint>,
}

/// Slots in a row that one primary has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Endpoint,
}

impl Slots {
    /// Reads the reply to `CLUSTER SLOTS` of the server at `asked`; `None` if it is none, or if
    /// nobody has any slots.
    pub(super) fn read(reply: &Value, asked: &Endpoint) -> Option<Self> {
        let Value::Array(rows) = reply else {
            return None;
        };
        let mut slots = Self::default();
        for row in rows {
            let [first, last, primary, replicas @ ..] = row.as_sequence()? else {
                return None;
            };
            slots.ranges.push(Range {
                first: number(first)?,
                last: number(last)?,
                primary: node(primary, asked)?,
            });
            // One that has no address yet is none to ask.
            for replica in replicas.iter().filter_map(|replica| node(replica, asked)) {
                if !slots.replicas.contains(&replica) {
                    slots.replicas.push(replica);
                }
            }
        }
        slots.ranges.sort_unstable_by_key(|range| range.first);
        let apart = |pair: &[Range]| matches!(pair, [one, next] if one.last < next.first);
        let sound = |range: &Range| range.first <= range.last && range.last < SLOTS;
        let is_sound = slots.ranges.iter().all(sound) && slots.ranges.windows(2).all(apart);
        (is_sound && !slots.ranges.is_empty()).then_some(slots)
    }
}

impl Slots {
    /// Returns the primaries, each once.
    pub(super) fn primaries(&self) -> impl Iterator<Item = &Endpoint> {
        let primaries = self.ranges.iter().enumerate().filter(|(place, range)| {
            let mut before = self.ranges.iter().take(*place);
            before.all(|before| before.primary != range.primary)
        });
        primaries.map(|(_, range)| &range.primary)
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

/// Reads where a server is. One without a name of its own is where the one is that was `asked`.
fn node(value: &Value, asked: &Endpoint) -> Option<Endpoint> {
    let [host, port, ..] = value.as_sequence()? else {
        return None;
    };
    let host = match host {
        Value::Nil => "",
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => return None,
    };
    asked.beside(host, number(port)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    fn node_reply(host: &str, port: u16) -> Value {
        let host = match host {
            "" => Value::Nil,
            host => Value::BulkString(host.into()),
        };
        let id = Value::BulkString(b"07c37df".to_vec());
        Value::Array(vec![
            host,
            Value::Int(port.into()),
            id,
            Value::Array(vec![]),
        ])
    }

    fn row(first: i64, last: i64, nodes: &[(&str, u16)]) -> Value {
        let mut row = vec![Value::Int(first), Value::Int(last)];
        row.extend(nodes.iter().map(|(host, port)| node_reply(host, *port)));
        Value::Array(row)
    }

    fn read(rows: Vec<Value>) -> Option<Slots> {
        Slots::read(&Value::Array(rows), &tcp("asked", 1))
    }

    #[test]
    fn primaries_and_replicas_are_read_in_the_order_of_slots() {
        let rows = vec![
            row(8192, 16_383, &[("", 7001), ("?", 7003)]),
            row(0, 8191, &[("one", 7000), ("two", 7002), ("::1", 7004)]),
        ];
        let slots = read(rows).unwrap();
        let range = |first, last, primary| Range {
            first,
            last,
            primary,
        };
        let ranges = [
            range(0, 8191, tcp("one", 7000)),
            range(8192, 16_383, tcp("asked", 7001)),
        ];
        assert_eq!(slots.ranges, ranges);
        assert_eq!(slots.replicas, [tcp("two", 7002), tcp("::1", 7004)]);
    }

    #[test]
    fn a_replica_is_named_once_however_many_ranges_its_primary_has() {
        let nodes = [("one", 7000), ("two", 7002)];
        let rows = (0..100).map(|slot| row(2 * slot, 2 * slot, &nodes));
        assert_eq!(read(rows.collect()).unwrap().replicas, [tcp("two", 7002)]);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let one = [("one", 7000)];
        for rows in [
            vec![],
            vec![Value::Nil],
            vec![row(0, 1, &[])],
            vec![row(1, 0, &one)],
            vec![row(-1, 0, &one)],
            vec![row(0, 16_384, &one)],
            vec![row(0, 100, &one), row(100, 200, &one)],
            vec![row(0, 1, &[("?", 7000)])],
        ] {
            assert_eq!(read(rows.clone()), None, "{rows:?}");
        }
        assert_eq!(Slots::read(&Value::Okay, &tcp("asked", 1)), None);
    }

    proptest! {
        #[test]
        fn any_ranges_are_apart_or_refused(ranges: Vec<(i16, i16)>, port: u16) {
            let rows = ranges
                .iter()
                .map(|(first, last)| row((*first).into(), (*last).into(), &[("one", port)]));
            if let Some(slots) = read(rows.collect()) {
                for slot in 0..SLOTS {
                    let owners = slots.ranges.iter();
                    let owners = owners.filter(|range| (range.first..=range.last).contains(&slot));
                    prop_assert!(owners.count() <= 1);
                }
            }
        }
    }
}
