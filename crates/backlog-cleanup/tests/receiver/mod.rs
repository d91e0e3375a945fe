//! Receivers of alerts on loopback: one of HTTP and one of SMTP, which do what the test says.
#![allow(dead_code)] // each test file uses its part

use std::collections::VecDeque;
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
        came.lock().unwrap().push(Request { path, headers, body: String::from_utf8(body).unwrap() });
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200, "ok"));
        let (status, header, text) = match answer {
            Answer::Status(status, text) => (status, String::new(), text),
            Answer::Stall(time) => {
                thread::sleep(time);
                (200, String::new(), "late")
            }
            Answer::Redirect(to) => (307, format!("location: {to}\r\n"), ""),
        };
        let answer = format!("HTTP/1.1 {status} said\r\ncontent-length: {}\r\n{header}\r\n{text}", text.len());
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A mail, as it came.
pub type Mail = String;

pub struct MailServer {
    /// `smtp://127.0.0.1:port`
    pub address: String,
    came: Arc<Mutex<Vec<Mail>>>,
}

impl MailServer {
    /// Refuses so many mails for now, as a greylist does, and takes what comes then.
    pub fn start(refuses: usize) -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("smtp://{}", listener.local_addr().unwrap());
        let came = Arc::<Mutex<Vec<Mail>>>::default();
        thread::spawn({
            let came = Arc::clone(&came);
            let refuses = Arc::new(Mutex::new(refuses));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (came, refuses) = (Arc::clone(&came), Arc::clone(&refuses));
                    thread::spawn(move || talk(stream, &came, &refuses));
                }
            }
        });
        MailServer { address, came }
    }

    pub fn came(&self) -> Vec<Mail> {
        self.came.lock().unwrap().clone()
    }
}

fn talk(stream: TcpStream, came: &Mutex<Vec<Mail>>, refuses: &Mutex<usize>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let say = |text: &str| (&stream).write_all(format!("{text}\r\n").as_bytes()).ok();
    say("220 here")?;
    while let Some(line) = lines.next() {
        match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => say("250 here")?,
            "RCPT" if *refuses.lock().unwrap() > 0 => {
                *refuses.lock().unwrap() -= 1;
                say("451 4.7.1 come again later")?;
            }
            "DATA" => {
                say("354 go on")?;
                let mail: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                came.lock().unwrap().push(mail.join("\n"));
                say("250 taken")?;
            }
            "QUIT" => {
                say("221 bye");
                return None;
            }
            _ => say("250 fine")?,
        }
    }
    None
}
