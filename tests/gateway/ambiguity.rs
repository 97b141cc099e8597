//! What is judged is what is executed: a backend reads every body it is sent in the ways parsers differ in, and none of
//! these readings may find anything the caller is not permitted.

mod backend;
mod corpus;
mod deep;
mod readers;
mod told;

use self::backend::Reading;

#[tokio::test]
async fn no_reader_finds_in_a_body_what_was_not_permitted() {
    let cases = corpus::all();
    assert!(cases.iter().filter(|case| !case.honest).count() >= 80);
    Reading::start(backend::reader()).await.withstands(&cases, 100).await;
}

#[tokio::test]
async fn no_reader_finds_more_in_what_stands_deeper_in_a_body() {
    Reading::start(deep::caller()).await.withstands(&deep::all(), 12).await;
}

#[tokio::test]
async fn no_reader_is_misled_by_a_name_with_a_nul_in_it() {
    Reading::start(backend::reader()).await.withstands(&corpus::cut(), 6).await;
    Reading::start(deep::caller()).await.withstands(&deep::cut(), 6).await;
}

#[tokio::test]
async fn headers_tell_no_other_story_than_the_body() {
    Reading::start(backend::reader()).await.withstands(&told::all(), 12).await;
}
