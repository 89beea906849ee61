//! Who is available: the statuses of users, the profiles they are taken from, and the schedules that
//! change them.

mod recurrence;
