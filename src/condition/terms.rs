//! Conditions taken apart: the terms of their `&&`, and the names they may ask of arguments.

use std::collections::HashSet;

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};

use super::MEMBERS;

/// The terms of the outermost `&&`; one that is false makes the whole false, whatever the others are.
pub fn outermost<'e>(expression: &'e IdedExpr, terms: &mut Vec<&'e IdedExpr>) {
    match &expression.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => call.args.iter().for_each(|term| outermost(term, terms)),
        _ => terms.push(expression),
    }
}

/// The server that a term demands.
pub fn only_server(term: &IdedExpr) -> Option<&str> {
    let Expr::Call(call) = &term.expr else { return None };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::EQUALS, [a, b]) => match (&a.expr, &b.expr) {
            (Expr::Ident(name), Expr::Literal(LiteralValue::String(text)))
            | (Expr::Literal(LiteralValue::String(text)), Expr::Ident(name))
                if name == "server" =>
            {
                Some(text.inner())
            }
            _ => None,
        },
        _ => None,
    }
}

/// The names an expression may ask of arguments: those of members, except of variables whose members are ours, and whatever
/// text it holds (`arguments["path"]`, `"path" in arguments`).
pub fn spoken(expression: &IdedExpr, words: &mut HashSet<String>) {
    match &expression.expr {
        Expr::Select(select) => {
            let is_ours = |name: &str| MEMBERS.iter().any(|(variable, _)| *variable == name);
            if !matches!(&select.operand.expr, Expr::Ident(name) if is_ours(name)) {
                words.insert(select.field.clone());
            }
        }
        Expr::Literal(LiteralValue::String(text)) => {
            words.insert(text.inner().to_owned());
        }
        _ => {}
    }
    for part in parts(expression) {
        spoken(part, words);
    }
}

/// The expressions an expression is made of.
pub fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Select(select) => vec![&*select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Comprehension(all) => {
            vec![&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result]
        }
        _ => Vec::new(),
    }
}

/// The expressions of an entry.
fn entry_parts(entry: &EntryExpr) -> impl Iterator<Item = &IdedExpr> {
    let parts = match entry {
        EntryExpr::StructField(field) => [None, Some(&field.value)],
        EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
    };
    parts.into_iter().flatten()
}
