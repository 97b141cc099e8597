//! The vocabulary of the benchmark: what is measured, over which lane, with which answer.

use clap::ValueEnum;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Bare Pingora proxy, its default runtime
    Pingora,
    /// Bare Pingora proxy, one plain runtime per worker
    PingoraNosteal,
    /// Bare Pingora that reads the call and answers it itself: the least that an answer from memory can cost
    PingoraAnswer,
    Nginx,
    /// The gateway, POST /mcp/{server}
    GatewayNative,
    /// The same with API keys and a role that names tools
    GatewayGuarded,
    /// The gateway, POST /api/mcp/{server}
    GatewayRest,
    /// The native lane with the circuit breaker switched off: what traffic control is compared with
    GatewayBare,
    /// The same with a local rate limit, a routing rule, the breaker and max_in_flight
    GatewayTraffic,
    /// The same with a rate limit shared in Redis
    GatewayShared,
    /// As `gateway-bare`, with an access record of each call in the log, and one trace in ten told to a collector
    GatewayTold,
    /// The native lane with a cache that keeps every call, none asked twice
    GatewayMiss,
    /// The same call again and again, answered from memory
    GatewayHit,
    /// The same over REST
    GatewayHitRest,
    /// Calls in turn that Redis has and memory has no room for
    GatewayHitRedis,
    /// `tools/list`, answered from memory
    GatewayList,
    /// The same over REST
    GatewayListRest,
}

/// A process under test; some serve several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Pingora,
    PingoraNosteal,
    PingoraAnswer,
    Nginx,
    Gateway,
    GatewayGuarded,
    GatewayBare,
    GatewayTraffic,
    GatewayShared,
    GatewayTold,
    GatewayCache,
    GatewayCacheRedis,
}

/// The form a call is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Native,
    /// With a credential.
    Guarded,
    Rest,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A call that nobody made before.
    Own,
    /// One and the same call.
    Same,
    /// So many calls in turn.
    Turns(u32),
    /// The list of tools.
    List,
}

/// How much the tool answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Small,
    Large,
}

pub const SIZES: [Size; 2] = [Size::Small, Size::Large];

impl Row {
    /// What the others are compared with.
    pub const YARDSTICK: Self = Self::Pingora;
    /// What traffic control is compared with.
    pub const BARE: Self = Self::GatewayBare;

    pub fn subject(self) -> Subject {
        match self {
            Self::Pingora => Subject::Pingora,
            Self::PingoraNosteal => Subject::PingoraNosteal,
            Self::PingoraAnswer => Subject::PingoraAnswer,
            Self::Nginx => Subject::Nginx,
            Self::GatewayNative | Self::GatewayRest => Subject::Gateway,
            Self::GatewayGuarded => Subject::GatewayGuarded,
            Self::GatewayBare => Subject::GatewayBare,
            Self::GatewayTraffic => Subject::GatewayTraffic,
            Self::GatewayShared => Subject::GatewayShared,
            Self::GatewayTold => Subject::GatewayTold,
            Self::GatewayHitRedis => Subject::GatewayCacheRedis,
            _ => Subject::GatewayCache,
        }
    }

    pub fn what(self) -> What {
        match self {
            Self::GatewayHit | Self::GatewayHitRest => What::Same,
            // The memory of that row has room for a few hundred.
            Self::GatewayHitRedis => What::Turns(5_000),
            Self::GatewayList | Self::GatewayListRest => What::List,
            _ => What::Own,
        }
    }

    pub fn lane(self) -> Lane {
        match self {
            Self::GatewayRest | Self::GatewayHitRest | Self::GatewayListRest => Lane::Rest,
            Self::GatewayGuarded => Lane::Guarded,
            _ => Lane::Native,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pingora => "pingora",
            Self::PingoraNosteal => "pingora-nosteal",
            Self::PingoraAnswer => "pingora-answer",
            Self::Nginx => "nginx",
            Self::GatewayNative => "gateway-native",
            Self::GatewayGuarded => "gateway-guarded",
            Self::GatewayRest => "gateway-rest",
            Self::GatewayBare => "gateway-bare",
            Self::GatewayTraffic => "gateway-traffic",
            Self::GatewayShared => "gateway-shared",
            Self::GatewayTold => "gateway-told",
            Self::GatewayMiss => "gateway-miss",
            Self::GatewayHit => "gateway-hit",
            Self::GatewayHitRest => "gateway-hit-rest",
            Self::GatewayHitRedis => "gateway-hit-redis",
            Self::GatewayList => "gateway-list",
            Self::GatewayListRest => "gateway-list-rest",
        }
    }
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pingora => "pingora",
            Self::PingoraNosteal => "pingora-nosteal",
            Self::PingoraAnswer => "pingora-answer",
            Self::Nginx => "nginx",
            Self::Gateway => "gateway",
            Self::GatewayGuarded => "gateway-guarded",
            Self::GatewayBare => "gateway-bare",
            Self::GatewayTraffic => "gateway-traffic",
            Self::GatewayShared => "gateway-shared",
            Self::GatewayTold => "gateway-told",
            Self::GatewayCache => "gateway-cache",
            Self::GatewayCacheRedis => "gateway-cache-redis",
        }
    }

    /// Whether it is the gateway, in any configuration.
    pub fn is_gateway(self) -> bool {
        !matches!(self, Self::Pingora | Self::PingoraNosteal | Self::PingoraAnswer | Self::Nginx)
    }
}

impl Size {
    /// Bytes of text in the result; the small one makes a result object of about 300.
    pub fn text(self) -> usize {
        match self {
            Self::Small => 230,
            Self::Large => 64 * 1024,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "300 B",
            Self::Large => "64 KB",
        }
    }
}
