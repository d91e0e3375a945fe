//! Debian's Chromium, driven by its chromedriver: a browser per test, gone at the end.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::http::Method;
use fantoccini::elements::Element;
use fantoccini::error::{CmdError, ErrorStatus};
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use url::{ParseError, Url};

pub struct Browser {
    driver: Child,
    runtime: Runtime,
    client: Client,
}

/// What WebDriver leaves to the browser: the DevTools protocol and the logs.
#[derive(Debug)]
struct Chromium {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Chromium {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _url: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// Starts a chromedriver; returns it with its port.
fn driver() -> Option<(Child, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver, from Debian's chromium-driver");
    let output = BufReader::new(driver.stdout.take().expect("its output"));
    let port = output.lines().map_while(Result::ok).find_map(|line| {
        line.split("started successfully on port ").nth(1).map(|port| port.trim_end_matches('.').to_owned())
    });
    port.map(|port| (driver, port))
}

impl Browser {
    pub fn start() -> Browser {
        // It ends if its port is free for IPv4 and taken for IPv6.
        let (driver, port) = (0..5).find_map(|_| driver()).expect("a port for chromedriver");
        let capabilities = json!({
            // There is no sandbox in containers and for root.
            "goog:chromeOptions": { "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                                             "--disable-dev-shm-usage", "--window-size=1280,900"] },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "pageLoadStrategy": "normal",
        });
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime
            .block_on(
                ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
                    .capabilities(capabilities.as_object().expect("an object").clone())
                    .connect(&format!("http://127.0.0.1:{port}")),
            )
            .expect("a session");
        Browser { driver, runtime, client }
    }

    /// Opens a tab, and goes on there.
    pub fn new_tab(&self) {
        let tab = self.wait(self.client.new_window(true)).expect("a tab");
        self.wait(self.client.switch_to_window(tab.handle)).expect("the tab");
    }

    pub fn open(&self, address: &str) {
        self.wait(self.client.goto(address)).expect("the page");
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn element(&self, css: &str) -> Element {
        self.wait(self.client.wait().for_element(Locator::Css(css))).expect(css)
    }

    /// Does something to an element; repeats it if a new page replaced the element meanwhile.
    fn on<T>(&self, css: &str, action: impl AsyncFn(&Element) -> Result<T, CmdError>) -> T {
        loop {
            match self.wait(action(&self.element(css))) {
                Err(CmdError::Standard(gone)) if gone.error == ErrorStatus::StaleElementReference => {}
                done => return done.expect(css),
            }
        }
    }

    /// The visible text of an element.
    pub fn text(&self, css: &str) -> String {
        self.on(css, Element::text)
    }

    /// Waits until an element contains a text, even if the page changes.
    pub fn says(&self, css: &str, part: &str) {
        let mut text = String::new();
        for _ in 0..600 {
            text = self.text(css);
            if text.contains(part) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{css} never says “{part}”, but: {text}");
    }

    pub fn click(&self, css: &str) {
        self.on(css, Element::click);
    }

    pub fn type_into(&self, css: &str, text: &str) {
        self.on(css, async |element| element.send_keys(text).await);
    }

    /// The value that a script in the page returns.
    pub fn script(&self, script: &str) -> Value {
        self.wait(self.client.execute(script, Vec::new())).expect(script)
    }

    /// Waits until a script returns true, even if the page changes.
    pub fn until(&self, condition: &str) {
        for _ in 0..600 {
            let holds = self.wait(self.client.execute(&format!("return {condition}"), Vec::new()));
            if holds.is_ok_and(|holds| holds == true) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("never true: {condition}");
    }

    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.wait(self.client.issue_cmd(Chromium { path: "goog/cdp/execute", body })).expect(command)
    }

    pub fn color_scheme(&self, scheme: &str) {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", feature);
    }

    /// A window of that width.
    pub fn wide(&self, width: u32) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The size of a small phone.
    pub fn phone(&self) {
        let metrics = json!({ "width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The size of a window on a desktop.
    pub fn desk(&self) {
        let metrics = json!({ "width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Sends keys to the focused element.
    pub fn press(&self, keys: &str) {
        self.wait(self.wait(self.client.active_element()).expect("a focus").send_keys(keys)).expect("a focus");
    }

    /// Presses Tab until a script returns true.
    pub fn tab_to(&self, condition: &str) {
        for _ in 0..200 {
            self.press("\u{e004}");
            if self.script(&format!("return {condition}")) == Value::Bool(true) {
                return;
            }
        }
        panic!("the tabulator does not reach: {condition}");
    }

    pub fn without_javascript(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// Writes two pictures: `target/dashboard/<name>.png` of the window and `<name>-whole.png` of the page.
    pub fn picture(&self, name: &str) {
        use base64::Engine;
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dashboard");
        std::fs::create_dir_all(&directory).expect("a directory");
        for (name, is_whole) in [(format!("{name}.png"), false), (format!("{name}-whole.png"), true)] {
            let shot = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": is_whole }));
            let png = base64::engine::general_purpose::STANDARD
                .decode(shot["data"].as_str().expect("a picture"))
                .expect("base64");
            std::fs::write(directory.join(name), png).expect("the picture");
        }
    }

    /// The violations that axe-core finds in the page.
    pub fn axe(&self) -> Vec<String> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&file).expect("axe-core, from scripts/setup-tests");
        self.script(&axe);
        let found = self
            .wait(self.client.execute_async(
                "const done = arguments[0];
                 axe.run().then(found => done(found.violations.map(violation => violation.id + ': ' + violation.help + ' '
                     + violation.nodes.map(node => node.html).slice(0, 3).join(' '))))",
                Vec::new(),
            ))
            .expect("axe runs");
        serde_json::from_value(found).expect("a list")
    }

    /// Errors in the console, and requests to other hosts than that of `address`.
    pub fn complaints(&self, address: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for entry in self.log("browser") {
            if entry["level"] == "SEVERE" {
                complaints.push(entry["message"].to_string());
            }
        }
        for entry in self.log("performance") {
            let event: Value = serde_json::from_str(entry["message"].as_str().expect("text")).expect("JSON");
            let url = event["message"]["params"]["request"]["url"].as_str().unwrap_or_default();
            if event["message"]["method"] == "Network.requestWillBeSent" && !url.starts_with(address) {
                complaints.push(format!("asked for {url}"));
            }
        }
        complaints
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let command = Chromium { path: "se/log", body: json!({ "type": kind }) };
        let log = self.wait(self.client.issue_cmd(command)).expect("a log");
        log.as_array().expect("entries").clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium is in the same process group.
        let group = format!("-{}", self.driver.id());
        assert!(Command::new("kill").args(["-TERM", "--", &group]).status().expect("kill starts").success());
        self.driver.wait().expect("chromedriver ends");
    }
}
