//! Receivers of alerts on loopback: one of HTTP and one of SMTP, which do what the test says.
#![allow(dead_code)] // each test file uses its part

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A request that came, with its headers in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(it, _)| it == name).map_or("", |(_, value)| value)
    }
}

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16, &'static str),
    /// Takes the request, and answers after so long.
    Stall(Duration),
    Redirect(String),
    /// Says what came: the path, the headers and the body.
    Echo(u16),
    /// Says something for ever.
    Flood(u16),
}

pub struct Receiver {
    /// `http://127.0.0.1:port`
    pub address: String,
    came: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Receiver {
    /// Answers as it is told, and then with 200.
    pub fn start(answers: impl IntoIterator<Item = Answer>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let came = Arc::<Mutex<Vec<Request>>>::default();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        thread::spawn({
            let (came, answers) = (Arc::clone(&came), Arc::clone(&answers));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (came, answers) = (Arc::clone(&came), Arc::clone(&answers));
                    thread::spawn(move || take(stream, &came, &answers));
                }
            }
        });
        Receiver { address, came, answers }
    }

    pub fn came(&self) -> Vec<Request> {
        self.came.lock().unwrap().clone()
    }

    /// Forgets what has come, and returns it.
    pub fn forget(&self) -> Vec<Request> {
        std::mem::take(&mut self.came.lock().unwrap())
    }

    pub fn then(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }
}

fn take(stream: TcpStream, came: &Mutex<Vec<Request>>, answers: &Mutex<VecDeque<Answer>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, it)| it.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let request = Request { path, headers, body: String::from_utf8(body).unwrap() };
        came.lock().unwrap().push(request.clone());
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200, "ok"));
        let (status, header, text) = match answer {
            Answer::Status(status, text) => (status, String::new(), text.to_owned()),
            Answer::Stall(time) => {
                thread::sleep(time);
                (200, String::new(), "late".into())
            }
            Answer::Redirect(to) => (307, format!("location: {to}\r\n"), String::new()),
            Answer::Echo(status) => {
                let parts = request.path.split(['/', '?', '&', '=']).collect::<Vec<_>>().join(" ");
                (status, String::new(), format!("{} {parts} {:?} {}", request.path, request.headers, request.body))
            }
            Answer::Flood(status) => {
                let head = format!("HTTP/1.1 {status} said\r\n\r\nfirst words ");
                let mut sent = (&stream).write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = (&stream).write_all(&[b'x'; 4096]);
                }
                return;
            }
        };
        let answer = format!("HTTP/1.1 {status} said\r\ncontent-length: {}\r\n{header}\r\n{text}", text.len());
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A mail, as it came.
pub type Mail = String;

/// A mail server. `smtp://` with STARTTLS, and `AUTH PLAIN` then, if it has a certificate.
#[derive(Clone)]
pub struct MailServer {
    pub address: String,
    came: Arc<Mutex<Vec<Mail>>>,
    /// Who got each of them.
    to: Arc<Mutex<Vec<Vec<String>>>>,
    /// What it answers to the next recipients.
    answers: Arc<Mutex<VecDeque<&'static str>>>,
    /// What it answers to these recipients always.
    mailboxes: Arc<Mutex<BTreeMap<&'static str, &'static str>>>,
    /// The credentials of each AUTH, and whether they were encrypted.
    logins: Arc<Mutex<Vec<(String, bool)>>>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl MailServer {
    /// Answers as it is told, and takes what comes then.
    pub fn start(answers: impl IntoIterator<Item = &'static str>) -> MailServer {
        MailServer::listen("127.0.0.1", answers, None)
    }

    /// At another address of this machine than localhost, of which no client thinks as this machine.
    pub fn listen(
        ip: &str,
        answers: impl IntoIterator<Item = &'static str>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> MailServer {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let server = MailServer {
            address: format!("smtp://{}", listener.local_addr().unwrap()),
            came: Arc::default(),
            to: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            mailboxes: Arc::default(),
            logins: Arc::default(),
            tls,
        };
        let here = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = here.clone();
                thread::spawn(move || server.talk(stream));
            }
        });
        server
    }

    pub fn came(&self) -> Vec<Mail> {
        self.came.lock().unwrap().clone()
    }

    pub fn to(&self) -> Vec<Vec<String>> {
        self.to.lock().unwrap().clone()
    }

    pub fn mailbox(&self, address: &'static str, answer: &'static str) {
        self.mailboxes.lock().unwrap().insert(address, answer);
    }

    pub fn logins(&self) -> Vec<(String, bool)> {
        self.logins.lock().unwrap().clone()
    }

    fn talk(&self, stream: TcpStream) -> Option<()> {
        let mut stream: BufReader<Box<dyn Stream>> = BufReader::new(Box::new(stream));
        let (mut is_encrypted, mut to) = (false, Vec::new());
        let offers = |is_encrypted| match (&self.tls, is_encrypted) {
            (Some(_), false) => "250-here\r\n250 STARTTLS",
            (Some(_), true) => "250-here\r\n250 AUTH PLAIN",
            (None, _) => "250 here",
        };
        say(&mut stream, "220 here")?;
        loop {
            let line = hear(&mut stream)?;
            match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => say(&mut stream, offers(is_encrypted))?,
                "STARTTLS" => {
                    say(&mut stream, "220 go on")?;
                    let tls = rustls::ServerConnection::new(Arc::clone(self.tls.as_ref()?)).ok()?;
                    stream = BufReader::new(Box::new(rustls::StreamOwned::new(tls, stream.into_inner())));
                    is_encrypted = true;
                }
                "AUTH" => {
                    self.logins.lock().unwrap().push((line, is_encrypted));
                    say(&mut stream, "235 fine")?;
                }
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let always = self.mailboxes.lock().unwrap().get(address.as_str()).copied();
                    let answer = always.or_else(|| self.answers.lock().unwrap().pop_front()).unwrap_or("250 fine");
                    if answer.starts_with("250") {
                        to.push(address);
                    }
                    say(&mut stream, answer)?;
                }
                "DATA" => {
                    say(&mut stream, "354 go on")?;
                    let mut mail = String::new();
                    loop {
                        match hear(&mut stream)?.as_str() {
                            "." => break,
                            line => mail.push_str(&format!("{line}\n")),
                        }
                    }
                    self.to.lock().unwrap().push(std::mem::take(&mut to));
                    self.came.lock().unwrap().push(mail);
                    say(&mut stream, "250 taken")?;
                }
                "QUIT" => {
                    say(&mut stream, "221 bye");
                    return None;
                }
                _ => say(&mut stream, "250 fine")?,
            }
        }
    }
}

trait Stream: Read + Write {}

impl<Any: Read + Write> Stream for Any {}

fn say(stream: &mut BufReader<Box<dyn Stream>>, text: &str) -> Option<()> {
    let stream = stream.get_mut();
    stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
    stream.flush().ok()
}

fn hear(stream: &mut BufReader<Box<dyn Stream>>) -> Option<String> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end().to_owned()),
    }
}
