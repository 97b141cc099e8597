//! What containers and orchestrators are given: every file is valid by the schema of who reads it, and says of the gateway
//! only what is true of it. `tests/image.sh` builds the image itself.

mod compose;
mod image;
mod kong;
mod kubernetes;
mod written;
