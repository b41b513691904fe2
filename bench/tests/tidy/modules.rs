//! Edges between the modules of a crate: `layers.txt` lists each module with the modules it may import. An edge that is
//! not in the list fails; so does a list whose edges run in a circle, for then there is no order to read the code in.
//! Modules that need each other by nature are named as a knot, which counts as one module.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{self, Source};

/// `crate/module: imported imported ...`, one module a line.
const LAYERS: &str = include_str!("layers.txt");
/// Crates whose modules are layered; bench and fuzz are flat.
const LAYERED: &[&str] = &["wire", "uring", "mount", "meta", "admin"];

type Edges = BTreeMap<String, BTreeSet<String>>;

#[test]
fn imports_follow_the_list() {
    let (listed, found) = (listed(), found());
    let none = BTreeSet::new();
    let mut wrong = Vec::new();
    for (module, imports) in &found {
        let allowed = listed.get(module).unwrap_or(&none);
        wrong.extend(imports.difference(allowed).map(|import| format!("{module} imports {import}")));
        if !listed.contains_key(module) {
            wrong.push(format!("{module} has no line"));
        }
    }
    for module in listed.keys().filter(|module| !found.contains_key(*module)) {
        wrong.push(format!("{module} is listed and does not exist"));
    }
    assert!(
        wrong.is_empty(),
        "not in bench/tests/tidy/layers.txt:\n{}\n\nToday's edges:\n{}",
        wrong.join("\n"),
        show(&found)
    );
}

#[test]
fn the_list_has_an_order() {
    let knots = knots();
    let name = |module: &String| knots.get(module).unwrap_or(module).clone();
    let mut rest = Edges::new();
    for (module, imports) in listed() {
        let own = name(&module);
        let imports = imports.iter().map(name).filter(|import| *import != own);
        rest.entry(own.clone()).or_default().extend(imports);
    }
    while !rest.is_empty() {
        let is_ready = |imports: &BTreeSet<String>| imports.iter().all(|import| !rest.contains_key(import));
        let ready: Vec<String> =
            rest.iter().filter(|(_, imports)| is_ready(imports)).map(|(module, _)| module.clone()).collect();
        assert!(!ready.is_empty(), "these modules import each other in a circle:\n{}", show(&rest));
        for module in ready {
            rest.remove(&module);
        }
    }
}

/// Each module of a knot with the knot's name: lines `knot crate: module module ...`.
fn knots() -> BTreeMap<String, String> {
    let mut knots = BTreeMap::new();
    for line in LAYERS.lines().filter_map(|line| line.strip_prefix("knot ")) {
        let (name, modules) = line.split_once(':').unwrap();
        for module in modules.split_whitespace() {
            knots.insert(format!("{name}/{module}"), format!("{name}/knot of{modules}"));
        }
    }
    knots
}

fn show(edges: &Edges) -> String {
    let line = |(module, imports): (&String, &BTreeSet<String>)| {
        let names: Vec<&str> = imports.iter().map(|import| import.split('/').nth(1).unwrap()).collect();
        format!("{module}: {}", names.join(" ")).trim_end().to_owned()
    };
    edges.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn listed() -> Edges {
    let mut edges = Edges::new();
    for line in LAYERS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ' ']) && !line.starts_with("knot "))
    {
        let (module, imports) = line.split_once(':').unwrap();
        let name = module.split('/').next().unwrap();
        let imports = imports.split_whitespace().map(|import| format!("{name}/{import}")).collect();
        assert!(edges.insert(module.to_owned(), imports).is_none(), "{module} is listed twice");
    }
    edges
}

/// What the sources import today: `crate::x` anywhere, and `super::x` in files that lie directly below `src`.
fn found() -> Edges {
    let mut edges = Edges::new();
    for name in LAYERED {
        let sources = tree::sources(&format!("{name}/src"));
        let modules: BTreeSet<String> = sources.iter().filter_map(|source| module_of(name, source)).collect();
        for source in sources.iter().filter(|source| source.is_rust()) {
            let Some(module) = module_of(name, source) else { continue };
            let imports = edges.entry(format!("{name}/{module}")).or_default();
            for target in targets(source, name, &module) {
                if target != module && modules.contains(&target) {
                    imports.insert(format!("{name}/{target}"));
                }
            }
        }
    }
    edges
}

/// First path segment below `src`; none for crate roots and for the binaries' own trees.
fn module_of(name: &str, source: &Source) -> Option<String> {
    let inner = source.path.strip_prefix(&format!("{name}/src/"))?;
    if !source.is_rust() || matches!(inner, "lib.rs" | "main.rs") || inner.starts_with("bin/") {
        return None;
    }
    Some(inner.split(['/', '.']).next().unwrap().to_owned())
}

/// Modules named behind `crate::`, in a `use` or in a path, and in `use crate::{a::.., b::..}` groups.
fn targets(source: &Source, name: &str, module: &str) -> BTreeSet<String> {
    let code: String =
        source.code().map(|(_, line)| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let is_top = source.path == format!("{name}/src/{module}.rs");
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "super::"] {
        if prefix == "super::" && !is_top {
            continue;
        }
        for (at, _) in code.match_indices(prefix) {
            // `$crate::` in a macro is this crate as well; `mycrate::` is not.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads(group)),
                None => found.extend(identifier(rest)),
            }
        }
    }
    found
}

/// First identifiers of the items of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut item, mut heads) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(identifier(std::mem::take(&mut item).trim())),
            c if depth == 0 => item.push(c),
            _ => {}
        }
    }
    heads.extend(identifier(item.trim()));
    heads
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn groups_are_read() {
    let text =
        "use crate::{a::{b, c}, d, e::f};\nuse crate::g::h;\nfn x() { crate::i::j() }\nmycrate::k();\n";
    let source = Source { path: "x/src/y.rs".into(), text: text.into() };
    let found: Vec<String> = targets(&source, "x", "y").into_iter().collect();
    assert_eq!(found, ["a", "d", "e", "g", "i"]);
}
