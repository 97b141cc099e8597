//! The README's table of refusals is the table the code runs on.

use std::fmt::Write as _;

use mcp_gateway::reject::Code;

fn table() -> String {
    let mut table = String::from("| code | status | when |\n|---|---|---|\n");
    for code in Code::ALL {
        let _ = writeln!(table, "| `{}` | {} [{}] | {} |", code.name(), code.status(), code.rpc(), code.meaning().trim());
    }
    table
}

#[test]
fn the_table_of_refusals_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("README.md");
    let (_, rest) = readme.split_once("held true by a test -->\n").expect("the mark before the table");
    let (written, _) = rest.split_once("<!-- end -->").expect("the mark behind it");
    assert_eq!(written, table(), "the table as it should be:\n{}", table());
}
