//! What holds only where several rooms, or a real disk or broker, meet.

#[macro_use]
mod contract;
mod embedded;
