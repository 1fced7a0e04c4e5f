//! End to end: the program that was built, its daemon, clients of every kind. One module for each subject; `daemon`, `tracked`,
//! `container` and `bus` are what tests stand on.
//!
//! Some need a kernel of their own (`daemon::in_guest`): xtask/src/vm_test.rs lists which modules run in guests.

mod bounds;
mod bus;
mod busy;
mod capturing;
mod cgmanager;
mod cli;
mod clients;
mod coming_back;
mod commands;
mod confining;
mod container;
mod containers;
mod crossing;
mod crowded;
mod daemon;
mod descriptors;
mod devices;
mod effects;
mod escaping;
mod events;
mod filling;
mod foreign;
mod freezing;
mod front_ends;
mod keys;
mod lacking;
mod leaving;
mod limiting;
mod marking;
mod measuring;
mod mounting;
mod notifying;
mod old_clients;
mod older;
mod opening;
mod privileges;
mod rdma;
mod reclaiming;
mod refusing;
mod releasing;
mod restarting;
mod ruling;
mod running;
mod serving;
mod signals;
mod system_bus;
mod traces;
mod tracked;
mod tracking;
mod unaided;
mod weighing;
