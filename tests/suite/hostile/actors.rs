//! Who acts, on a database that each episode has for itself.

use std::sync::mpsc::{Receiver, Sender, channel};

use cluster::Cluster;
use postgres::{Client, Config, NoTls};

/// The last four are hostile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    Superuser,
    Owner,
    Admin,
    Operator,
    Monitor,
}

pub const ACTORS: [Actor; 5] = [Actor::Superuser, Actor::Owner, Actor::Admin, Actor::Operator, Actor::Monitor];

impl Actor {
    /// Whether nothing of the code of others may reach its session.
    pub fn is_protected(self) -> bool {
        matches!(self, Actor::Superuser | Actor::Operator | Actor::Monitor)
    }

    /// Its role, which has a schema of this name.
    pub fn role(self) -> &'static str {
        match self {
            Actor::Superuser => "postgres",
            Actor::Owner => "app",
            Actor::Admin => "adm",
            Actor::Operator => "op",
            Actor::Monitor => "mon",
        }
    }
}

/// The roles and the database that each episode gets a copy of.
pub struct Arena {
    cluster: Cluster,
}

impl Arena {
    pub fn start() -> Arena {
        let settings =
            "max_worker_processes = 16\nautovacuum = off\nlog_line_prefix = '%e '\nstatement_timeout = '20s'\n";
        let cluster = Cluster::start(settings);
        cluster.connect().batch_execute(include_str!("roles.sql")).expect("the roles");
        let mut template = cluster.platform_in("stage");
        template.batch_execute(include_str!("stage.sql")).expect("the stage");
        template.batch_execute(include_str!("checker.sql")).expect("the checker");
        Arena { cluster }
    }

    /// Opens a copy of the database, with a session of each actor.
    pub fn open(&self) -> Database {
        let mut maker = self.cluster.connect();
        for statement in [
            // What an episode that was found out may have left.
            "ALTER ROLE app NOSUPERUSER; ALTER ROLE adm NOSUPERUSER; ALTER ROLE op NOSUPERUSER; ALTER ROLE mon NOSUPERUSER",
            "DROP ROLE IF EXISTS planted; REVOKE victim FROM app, adm, op, mon",
            "DROP DATABASE IF EXISTS episode WITH (FORCE)",
            "CREATE DATABASE episode TEMPLATE stage",
        ] {
            maker.batch_execute(statement).expect("a database");
        }
        let (heard, warnings) = channel();
        let sessions = ACTORS.map(|actor| self.connect(actor.role(), heard.clone()));
        Database { sessions, checker: self.connect("postgres", heard), warnings }
    }

    fn connect(&self, role: &str, heard: Sender<String>) -> Client {
        let mut configuration = Config::new();
        configuration.host(self.cluster.socket()).user(role).dbname("episode");
        if role != "postgres" {
            configuration.options("-c lock_timeout=100ms -c statement_timeout=5s");
        }
        // Nobody listens after the end.
        configuration.notice_callback(move |notice| heard.send(notice.message().to_owned()).unwrap_or_default());
        configuration.connect(NoTls).expect("connects")
    }

    /// What the server has logged.
    pub fn logged(&self) -> String {
        self.cluster.logged()
    }
}

pub struct Database {
    sessions: [Client; 5],
    pub checker: Client,
    /// What the server has told any of the sessions.
    pub warnings: Receiver<String>,
}

impl Database {
    pub fn session(&mut self, actor: Actor) -> &mut Client {
        &mut self.sessions[actor as usize]
    }

    /// Two sessions at a time.
    pub fn sessions(&mut self, one: Actor, other: Actor) -> [&mut Client; 2] {
        self.sessions.get_disjoint_mut([one as usize, other as usize]).expect("two actors")
    }
}
