//! The words metrics tell one thing from another by: fixed sets, so that no client can make series.

/// How an MCP request ended, as the `outcome` label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The tool ran and reported failure (`isError`).
    ToolError,
    /// The server answered with a JSON-RPC error.
    ServerError,
    /// We refused it.
    Refused,
    /// The backend failed.
    Failed,
    /// The client left before the end.
    Abandoned,
}

impl Outcome {
    pub(super) const ALL: [Self; 6] = [Self::Ok, Self::ToolError, Self::ServerError, Self::Refused, Self::Failed, Self::Abandoned];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::ServerError => "server_error",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What decides in place of the shared store of rate limits (`on_store_failure`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    Local,
    Allow,
    Deny,
}

impl Fallback {
    pub(super) const ALL: [Self; 3] = [Self::Local, Self::Allow, Self::Deny];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Why a request was refused before anything was known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// `server.limits.in_flight`.
    InFlight,
    /// `max_in_flight` of all backends that could serve it.
    Backend,
    /// `server.limits.shed_lag`.
    Lag,
    /// `server.limits.requests_per_ip`.
    Address,
}

impl Shed {
    pub(super) const ALL: [Self; 4] = [Self::InFlight, Self::Backend, Self::Lag, Self::Address];

    pub const fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Backend => "backend",
            Self::Lag => "lag",
            Self::Address => "address",
        }
    }
}

/// Why another backend is asked, as the `kind` label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing reached the one before.
    Unsent,
    /// The one before failed, and the request may be executed twice.
    Repeat,
    /// The one before is slow.
    Hedge,
    /// Not asked: the budget is used up.
    OverBudget,
}

impl Retry {
    pub(super) const ALL: [Self; 4] = [Self::Unsent, Self::Repeat, Self::Hedge, Self::OverBudget];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Repeat => "repeat",
            Self::Hedge => "hedge",
            Self::OverBudget => "over_budget",
        }
    }
}

/// How one upstream request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Status(u16),
    Unreachable,
    Broken,
}
