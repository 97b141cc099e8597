//! nginx as a reverse proxy: the reference outside our own stack.
//!
//! The configuration gives it what helps here (keep-alive both ways, no access log, no spooling to disk); one worker,
//! like the others.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::Result;

const BINARY: &str = "/usr/sbin/nginx";

pub fn command(dir: &Path, listen: SocketAddr, origin: SocketAddr) -> Result<Command> {
    if !Path::new(BINARY).exists() {
        return Err(format!("{BINARY} is missing (Debian: apt install nginx-light), or leave it out with --only").into());
    }
    let path = dir.join("nginx.conf");
    fs::write(&path, configuration(dir, listen, origin))?;
    let mut command = Command::new(BINARY);
    command.arg("-c").arg(path).arg("-p").arg(dir).args(["-e", "stderr"]);
    Ok(command)
}

fn configuration(dir: &Path, listen: SocketAddr, origin: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "\
daemon off;
worker_processes 1;
# As root the worker would become another user, who may not enter our directory.
user root;
pid {dir}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream origin {{
        server {origin};
        keepalive 128;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffers 16 8k;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 600s;
        }}
    }}
}}
"
    )
}
