//! The files in `assets/`.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;

use crate::serve::app::App;

/// Address, kind and text of each.
const ASSETS: [(&str, &str, &str); 3] = [
    ("/assets/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/assets/script.js", "text/javascript; charset=utf-8", include_str!("assets/script.js")),
    ("/assets/style.css", "text/css; charset=utf-8", STYLE),
];

/// Later files override earlier ones.
const STYLE: &str = concat!(
    include_str!("assets/style/colors.css"),
    include_str!("assets/style/page.css"),
    include_str!("assets/style/health.css"),
    include_str!("assets/style/chart.css"),
    include_str!("assets/style/table.css"),
    include_str!("assets/style/form.css"),
    include_str!("assets/style/alerts.css"),
    include_str!("assets/style/narrow.css"),
);

pub fn routes() -> Router<Arc<App>> {
    ASSETS.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
        router.route(path, get(move || async move { (headers, text) }))
    })
}
