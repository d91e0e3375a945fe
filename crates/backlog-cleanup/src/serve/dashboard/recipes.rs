//! The rows in scope by recipe: bars, sorted and searched on the server, a page at a time.

use std::cmp::Reverse;

use backlog_cleanup_report::{RecipeFailures, plural};
use maud::{Markup, html};

use super::data::Data;
use super::names;
use super::query::{Query, Sort};
use crate::words;

/// The number of recipes on a page.
const PAGE: usize = 15;

pub fn section(data: &Data) -> Markup {
    let all = &data.status.recipes_with_failed_generations;
    let group_word = &data.nouns().group_word;
    let groups = plural(group_word);
    let found = found(all, &data.query);
    let pages = found.len().div_ceil(PAGE).max(1);
    let page = data.query.page.unwrap_or(1).clamp(1, pages);
    let shown = &found[(page - 1) * PAGE..(page * PAGE).min(found.len())];
    let most = all.iter().map(|recipe| recipe.failed_count).max().unwrap_or(1).max(1);
    html! {
        section #recipes .card aria-labelledby="recipes-title" {
            div .title {
                h2 #recipes-title { "In scope by " (group_word) }
                (search(&data.query, &groups))
            }
            p role="status" {
                @if data.query.search.is_empty() { (words::count(all.len() as i64, group_word)) "." }
                @else { (words::number(found.len() as i64)) " of " (words::count(all.len() as i64, group_word)) " for “" (data.query.search) "”." }
            }
            @if !shown.is_empty() {
                div .scroll tabindex="0" role="region" aria-label=(groups) { (table(shown, most, &data.query, group_word)) }
            }
            @if pages > 1 { (pager(&data.query, &groups, page, pages)) }
        }
    }
}

fn found<'a>(all: &'a [RecipeFailures], query: &Query) -> Vec<&'a RecipeFailures> {
    let wanted = query.search.trim().to_lowercase();
    let mut found: Vec<&RecipeFailures> = all
        .iter()
        .filter(|recipe| {
            recipe.recipe_name.to_lowercase().contains(&wanted)
                || words::recipe_id(&recipe.recipe_id).to_lowercase() == wanted
        })
        .collect();
    // The status report has the recipes with most rows in scope first.
    match query.sort {
        Sort::Failed => {}
        Sort::Removable => found.sort_by_key(|recipe| Reverse(recipe.removable_count)),
        Sort::Oldest => found.sort_by(|a, b| {
            (a.oldest_failed_at.is_none(), &a.oldest_failed_at)
                .cmp(&(b.oldest_failed_at.is_none(), &b.oldest_failed_at))
        }),
        Sort::Name => found.sort_by_key(|recipe| recipe.recipe_name.to_lowercase()),
    }
    found
}

fn search(query: &Query, groups: &str) -> Markup {
    html! {
        form .search action="/" method="get" role="search" {
            @if !query.target.is_empty() { input type="hidden" name="target" value=(query.target); }
            input type="hidden" name="span" value=(query.span.value());
            label .hidden for="search" { "Search " (groups) " by name or id" }
            input #search type="search" name="search" value=(query.search) placeholder="name or id";
            label .hidden for="sort" { "Sort by" }
            select #sort name="sort" {
                @for sort in Sort::ALL { option value=(sort.value()) selected[sort == query.sort] { (sort.words()) } }
            }
            button type="submit" { "Search" }
        }
    }
}

fn table(shown: &[&RecipeFailures], most: i64, query: &Query, group_word: &str) -> Markup {
    let heading = |sort: Sort, word: &str, class: &str| {
        let sorted = (query.sort == sort).then_some(if sort == Sort::Name || sort == Sort::Oldest {
            "ascending"
        } else {
            "descending"
        });
        html! {
            th scope="col" class=(class) aria-sort=[sorted] {
                a href=(query.link(|query| { query.sort = sort; query.page = None })) { (word) }
            }
        }
    };
    html! {
        table .recipes {
            thead {
                tr {
                    (heading(Sort::Name, group_word, ""))
                    (heading(Sort::Failed, "in scope", "figure"))
                    th scope="col" .bars { span .hidden { "share" } }
                    (heading(Sort::Removable, "removable", "figure"))
                    (heading(Sort::Oldest, "oldest", ""))
                }
            }
            tbody {
                @for recipe in shown {
                    tr {
                        th scope="row" { (names::recipe(&recipe.recipe_name, &recipe.recipe_id)) }
                        td .figure { (words::number(recipe.failed_count)) }
                        td .bars { (bar(recipe, most)) }
                        td .figure { (words::number(recipe.removable_count)) }
                        td { (recipe.oldest_failed_age.as_deref().unwrap_or("unknown")) }
                    }
                }
            }
        }
    }
}

/// The rows in scope, relative to the recipe with most; the removable rows are the darker part.
fn bar(recipe: &RecipeFailures, most: i64) -> Markup {
    let share = |figure: i64| format!("{:.2}%", figure as f64 * 100.0 / most as f64);
    html! {
        svg width="100%" height="10" aria-hidden="true" {
            rect .failed width=(share(recipe.failed_count)) height="10" rx="2" {}
            rect .removable width=(share(recipe.removable_count)) height="10" rx="2" {}
        }
    }
}

fn pager(query: &Query, groups: &str, page: usize, pages: usize) -> Markup {
    let to = |page: usize| query.link(|query| query.page = Some(page).filter(|page| *page > 1)) + "#recipes";
    html! {
        nav .pager aria-label={ "pages of " (groups) } {
            @if page > 1 { a href=(to(page - 1)) rel="prev" { "← previous" } }
            span { "page " (words::number(page as i64)) " of " (words::number(pages as i64)) }
            @if page < pages { a href=(to(page + 1)) rel="next" { "next →" } }
        }
    }
}
