//! Who may know whom, inside a crate.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;

use crate::Finding;
use crate::tree::{is_cfg_test, is_test};

/// A module and the modules of its crate it may use.
struct Layer {
    module: &'static str,
    may_use: &'static [&'static str],
}

const fn layer(module: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { module, may_use }
}

/// From the ground up: a module may use only what stands above it here.
const CORE: [Layer; 31] = [
    // Numbers, words and bounds, for everybody.
    layer("limits", &[]),
    layer("rng", &[]),
    layer("time", &[]),
    layer("id", &["rng", "time"]),
    layer("metadata", &["limits"]),
    // What comes in, where it goes, what an attempt came to. An endpoint holds
    // patterns and a filter, so they stand below it, not above.
    layer("filter", &["limits"]),
    layer("content", &["limits"]),
    layer("event", &["limits", "time"]),
    layer("outcome", &["limits", "time"]),
    // An endpoint names its scheme, and a scheme says why there was a retry.
    layer("signature", &["limits", "outcome", "time"]),
    layer(
        "endpoint",
        &[
            "content",
            "event",
            "filter",
            "id",
            "limits",
            "metadata",
            "signature",
            "time",
        ],
    ),
    layer("gate", &["id", "time"]),
    // What an attempt came to says when to try again, by a policy that endpoints
    // name: who wants what, and how it is retried, is read together.
    layer("retry", &["limits", "outcome", "rng", "time"]),
    layer(
        "registry",
        &["content", "endpoint", "filter", "gate", "id", "retry"],
    ),
    // What people say of tenants, event types and retry policies: folded as
    // endpoints are.
    layer(
        "records",
        &["event", "limits", "metadata", "registry", "retry", "time"],
    ),
    // Leaves: what may be called.
    layer("wall", &["limits"]),
    layer("target", &["limits"]),
    // Who may do what: a key is shown once, as a signing secret is.
    layer("access", &["event", "id", "limits", "signature", "time"]),
    // What requests with an idempotency key were answered.
    layer("answers", &["endpoint", "id", "limits", "registry", "time"]),
    // What was asked of an endpoint's owner.
    layer(
        "operation",
        &["content", "event", "filter", "id", "limits", "time"],
    ),
    // Mechanisms that know no delivery.
    layer("timers", &["id", "limits", "time"]),
    layer("offsets", &["limits"]),
    layer("base_rtt", &["time"]),
    layer("rate", &["limits", "rng", "time"]),
    // What an attempt came to says whether its receiver is well and how much it
    // can take.
    layer("breaker", &["limits", "outcome", "rng", "time"]),
    layer("window", &["limits", "outcome", "time"]),
    // A delivery names its endpoint by the registry's index, and its lane record
    // carries event and outcome.
    layer(
        "delivery",
        &[
            "breaker", "event", "id", "limits", "outcome", "registry", "time",
        ],
    ),
    layer(
        "queue",
        &[
            "base_rtt", "breaker", "delivery", "limits", "outcome", "rate", "rng", "time", "window",
        ],
    ),
    // A shard looks endpoints up and decides about the first attempt itself.
    layer(
        "shard",
        &[
            "base_rtt", "delivery", "gate", "id", "limits", "outcome", "queue", "registry",
            "retry", "rng", "time", "timers",
        ],
    ),
    // What an operation brings again: events as lane records, dead letters by
    // the names of their causes.
    layer(
        "replay",
        &[
            "content",
            "delivery",
            "endpoint",
            "event",
            "id",
            "limits",
            "operation",
            "shard",
            "time",
        ],
    ),
    // An owner hears of its deliveries by outcome, decides by retry, and carries
    // operations out.
    layer(
        "lane",
        &[
            "breaker",
            "delivery",
            "gate",
            "id",
            "limits",
            "operation",
            "outcome",
            "rate",
            "registry",
            "retry",
            "rng",
            "time",
            "timers",
        ],
    ),
];

/// The rooms, from the ground up.
const SERVER: [Layer; 19] = [
    layer("clock", &[]),
    layer("telemetry", &[]),
    layer("log", &["clock"]),
    // Settings name topics and partitions as the log does.
    layer("config", &["log"]),
    // Keys to endpoints' secrets: the API seals, only the sender opens.
    layer("vault", &["config"]),
    layer("send", &["clock", "config", "log", "telemetry", "vault"]),
    layer("operational", &["config", "log"]),
    layer(
        "control",
        &["clock", "config", "log", "operational", "telemetry"],
    ),
    layer("audit", &["clock", "config", "log", "telemetry"]),
    layer(
        "ingest",
        &["clock", "config", "control", "log", "telemetry"],
    ),
    // Ingest and owner know only mailboxes, dispatch only where tickets and
    // reports go: what they hand each other is the core's.
    layer(
        "dispatch",
        &["audit", "clock", "config", "log", "send", "telemetry"],
    ),
    layer(
        "owner",
        &[
            "clock",
            "config",
            "control",
            "log",
            "operational",
            "telemetry",
        ],
    ),
    layer(
        "inbound",
        &["clock", "config", "control", "ingest", "log", "telemetry"],
    ),
    layer(
        "api",
        &[
            "audit",
            "clock",
            "config",
            "control",
            "ingest",
            "log",
            "owner",
            "send",
            "telemetry",
            "vault",
        ],
    ),
    layer(
        "dashboard",
        &[
            "api",
            "audit",
            "clock",
            "config",
            "control",
            "log",
            "telemetry",
        ],
    ),
    layer("listen", &["config"]),
    layer("shutdown", &["clock", "config", "telemetry"]),
    layer(
        "app",
        &[
            "api",
            "audit",
            "clock",
            "config",
            "control",
            "dashboard",
            "dispatch",
            "inbound",
            "ingest",
            "listen",
            "log",
            "owner",
            "send",
            "shutdown",
            "telemetry",
            "vault",
        ],
    ),
    // The command line opens a log as the app does, makes keys in it, and speaks
    // to its api, whose description it prints.
    layer(
        "cli",
        &[
            "api",
            "app",
            "clock",
            "config",
            "control",
            "log",
            "send",
            "telemetry",
            "vault",
        ],
    ),
];

pub(crate) fn check(path: &str, file: &syn::File) -> Vec<Finding> {
    let tables: [(&str, &[Layer]); 2] =
        [("engine/core/src/", &CORE), ("engine/server/src/", &SERVER)];
    for (folder, table) in tables {
        if let Some(inside) = path.strip_prefix(folder)
            && !is_test(path)
            && !matches!(inside, "lib.rs" | "main.rs")
        {
            return judge(path, inside, file, table);
        }
    }
    Vec::new()
}

fn judge(path: &str, inside: &str, file: &syn::File, table: &[Layer]) -> Vec<Finding> {
    let place: Vec<_> = inside
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    let Some(layer) = table.iter().find(|layer| layer.module == place[0]) else {
        let right = format!(
            "`{}` has no row in the table of layers: give it one",
            place[0]
        );
        return vec![Finding::new(path, 1, "layers", right)];
    };
    let mut uses = Vec::new();
    items(&file.items, &place, &mut uses);
    let foreign = uses
        .into_iter()
        .filter(|(module, _)| *module != layer.module && !layer.may_use.contains(&module.as_str()));
    let finding = |(module, line): (String, usize)| {
        let right = format!(
            "`{}` may use {:?}, not `{module}`: move what they share down, or change the table and \
             the page",
            layer.module, layer.may_use
        );
        Finding::new(path, line, "layers", right)
    };
    foreign.map(finding).collect()
}

/// The crate's modules that production items use, with the lines. `place` is
/// the path of the module they stand in.
fn items(items_of: &[syn::Item], place: &[String], uses: &mut Vec<(String, usize)>) {
    for item in items_of {
        if let syn::Item::Mod(module) = item {
            if let Some((_, inner)) = module
                .content
                .as_ref()
                .filter(|_| !is_cfg_test(&module.attrs))
            {
                let below: Vec<_> = place
                    .iter()
                    .cloned()
                    .chain([module.ident.to_string()])
                    .collect();
                items(inner, &below, uses);
            }
        } else if !is_cfg_test(attributes(item)) {
            tokens(item.to_token_stream(), place.len(), uses);
        }
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Finds `crate::x`, `crate::{x, ..}` and as many `super::` as lead to the
/// crate, in the arguments of macros too.
fn tokens(stream: TokenStream, depth: usize, uses: &mut Vec<(String, usize)>) {
    let all: Vec<_> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(token) = all.get(at) {
        at += 1;
        if let TokenTree::Group(group) = token {
            tokens(group.stream(), depth, uses);
            continue;
        }
        let mut above = match token {
            TokenTree::Ident(ident) if *ident == "crate" => depth,
            TokenTree::Ident(ident) if *ident == "super" => 1,
            _ => continue,
        };
        while is_path_separator(&all[at..]) {
            at += 2;
            match all.get(at) {
                Some(TokenTree::Ident(next)) if *next == "super" => above += 1,
                Some(next) if above == depth => {
                    first_names(next, uses);
                    break;
                }
                _ => break,
            }
            at += 1;
        }
    }
}

fn is_path_separator(rest: &[TokenTree]) -> bool {
    let colon = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ':');
    matches!(rest, [first, second, ..] if colon(first) && colon(second))
}

/// The name a path goes on with, or those that a group begins with.
fn first_names(next: &TokenTree, uses: &mut Vec<(String, usize)>) {
    match next {
        TokenTree::Ident(ident) => uses.push((ident.to_string(), ident.span().start().line)),
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
            let mut begins = true;
            for token in group.stream() {
                match token {
                    TokenTree::Ident(ident) if begins => {
                        uses.push((ident.to_string(), ident.span().start().line));
                        begins = false;
                    }
                    TokenTree::Punct(punct) => begins = punct.as_char() == ',',
                    _ => begins = false,
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines;

    fn found(path: &str, text: &str) -> Vec<Finding> {
        check(path, &syn::parse_file(text).expect("a planted file parses"))
    }

    #[test]
    fn the_tables_have_no_circle() {
        for table in [&CORE[..], &SERVER[..]] {
            for (place, layer) in table.iter().enumerate() {
                for used in layer.may_use {
                    let below = table[..place].iter().any(|other| other.module == *used);
                    assert!(
                        below,
                        "{} uses {used}, which does not stand above it",
                        layer.module
                    );
                }
            }
        }
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_caught_however_it_is_written() {
        let path = "engine/core/src/offsets/bits.rs";
        assert_eq!(
            found(path, "use crate::limits::A;\nuse super::B;\nuse std::time;"),
            []
        );
        for text in [
            "use crate::shard::Shard;",
            "use crate::{limits::A, shard::Shard};",
            "use crate::{limits::{A, id}, shard};",
            "use super::super::shard::Shard;",
            "fn f() -> crate::shard::Shard { todo() }",
            "fn f() { println!(\"{:?}\", crate::shard::f()) }",
            "mod inner { use super::super::super::shard::Shard; }",
        ] {
            let found = found(path, text);
            assert_eq!(lines(&found), [1], "{text}");
            assert!(found[0].right.contains("not `shard`"), "{}", found[0]);
        }
        let tests = "#[cfg(test)]\nmod tests { use crate::shard::Shard; }\n\
                     #[cfg(test)]\nfn sample() -> crate::shard::Shard { f() }";
        assert_eq!(found(path, tests), []);
        assert_eq!(
            found(
                "engine/core/src/offsets/tests.rs",
                "use crate::shard::Shard;"
            ),
            []
        );
    }

    #[test]
    fn a_room_knows_only_those_below() {
        let text = "use crate::log::Log;\nuse crate::api::Api;";
        assert_eq!(lines(&found("engine/server/src/owner/part.rs", text)), [2]);
        let unknown = found("engine/server/src/cellar.rs", "use crate::log::Log;");
        assert!(unknown[0].right.contains("no row"));
    }
}
