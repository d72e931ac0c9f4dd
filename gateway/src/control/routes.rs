//! Routes as a table of `status`.

use crate::observe::table::Table;

use super::RouteStatus;

/// One row a route.
pub(super) fn table(routes: &[RouteStatus]) -> Table<7> {
    let rows = routes.iter().map(|route| {
        [
            route.name.clone(),
            route.matches.clone(),
            route.backends.join(", "),
            format!("{} of {}", route.healthy, route.servers),
            route.hold.clone().unwrap_or_else(|| "no".to_owned()),
            route.messages.accepted_total.to_string(),
            format!("{}, {}", route.messages.rejected_total, route.messages.deferred_total),
        ]
    });
    Table::new(["ROUTE", "FOR", "BACKEND", "HEALTHY", "HELD", "MESSAGES", "REJECTED, DEFERRED"], rows)
}

/// Whether nothing flows there, or something was found.
pub(super) fn is_alarming(route: &RouteStatus) -> bool {
    (route.healthy == 0 && route.servers > 0) || route.hold.is_some()
}
