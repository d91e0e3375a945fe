/// The longest time between two runs of a cron expression, in days, rounded up: 1 where it runs every day, else 7, 31 or
/// 366, by the field that limits it.
pub fn longest_gap(schedule: &str) -> i32 {
    match schedule.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, month, _] if month != "*" => 366,
        [_, _, day, _, _] if day != "*" => 31,
        [_, _, _, _, weekday] if weekday != "*" => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::longest_gap;

    #[test]
    fn the_gap_is_that_of_the_field_that_limits_the_schedule() {
        for (schedule, days) in [
            ("0 2 * * *", 1),
            ("*/5 * * * *", 1),
            ("30 seconds", 1),
            ("0 2 * * 0", 7),
            ("0 2 1 * *", 31),
            ("0 2 1 * 0", 31),
            ("0 2 1 6 *", 366),
        ] {
            assert_eq!(longest_gap(schedule), days, "{schedule}");
        }
    }
}
