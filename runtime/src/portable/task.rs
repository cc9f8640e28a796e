//! The process that hosts a guest, where there is no Linux. It is this program, executed again by the monitor.
//!
//! There is no second wall here: what keeps the guest in is wasmtime's sandbox, and the host functions that it was
//! given. Its network ([`super::sockets`]) is in this process. It ends with its monitor: when the line ends, so does it.

use std::fs::{File, OpenOptions};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use super::hosted::{Order, Plan, Word};
use super::link;
use super::sockets::Sockets;
use crate::backend::wasm::run::{Program, Ready};
use crate::engine::{Engine, Options};
use crate::error::{Class, Error, Result};
use crate::monitor::protocol::Failure;
use crate::network::VirtualNetwork;
use crate::task::{WasmTask, Workload};

/// The exit code of a process whose monitor went away. Nobody sees it.
const ABANDONED: i32 = 125;

/// The main function of such a process. Returns its exit code.
pub(super) fn main() -> i32 {
    let Ok(line) = link::call_parent() else { return ABANDONED };
    let Ok(Some(Order::Plan(plan))) = link::receive(&line) else { return ABANDONED };
    let _lock = match lock(&plan) {
        Ok(lock) => lock,
        Err(e) => return failed(&line, &e),
    };
    let (ready, sockets) = match prepare(&plan, &line) {
        Ok(Some(ready)) => ready,
        Ok(None) => return ABANDONED,
        Err(e) => return failed(&line, &e),
    };
    if link::send(&line, &Word::Ready).is_err() || !matches!(link::receive(&line), Ok(Some(Order::Go))) {
        return ABANDONED;
    }
    let orders = listen(line, Arc::clone(&sockets));
    match ready {
        Ready::Command(guest) => guest.run(),
        Ready::Server(serving) => {
            let asked = || orders.recv().map_or(ABANDONED, |signal| 128 + signal);
            serving.serve(sockets, asked).unwrap_or_else(|e| {
                // The container's own standard error: its log.
                eprintln!("wharf: {e}");
                e.exit_code()
            })
        }
    }
}

fn failed(line: &TcpStream, error: &Error) -> i32 {
    // If the monitor is gone there is nobody to tell.
    let _ = link::send(line, &Word::Failed(Failure::from(error)));
    error.exit_code()
}

fn lock(plan: &Plan) -> Result<File> {
    let path = &plan.lock;
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(|e| Error::io("open", path, e))?;
    file.try_lock().map_err(|e| Error::io("lock", path, std::io::Error::from(e)))?;
    Ok(file)
}

type Prepared = (Ready, Arc<Sockets>);

/// Loads the guest, takes its place on its network, opens what it is to see. `None`: the monitor is gone.
fn prepare(plan: &Plan, line: &TcpStream) -> Result<Option<Prepared>> {
    let task = wasm_of(plan)?;
    let program = Program::load(task, None)?;
    let options = Options { root: Some(plan.root.clone()), run: Some(plan.run.clone()), docker_config: None };
    let sockets = Sockets::new(Engine::open(options)?, &task.network, plan)?;
    link::send(line, &Word::Bound(sockets.ports(), program.wants_network()))?;
    let Some(Order::Place(places)) = link::receive(line)? else { return Ok(None) };
    sockets.place(places).map_err(|e| Error::os("take a place on a network", e))?;
    let sockets = Arc::new(sockets);
    let network: Arc<dyn VirtualNetwork> = sockets.clone();
    let spec = &plan.spec;
    let ready = program.prepare(task, &spec.rootfs, spec.limits.memory, network)?;
    Ok(Some((ready, sockets)))
}

fn wasm_of(plan: &Plan) -> Result<&WasmTask> {
    match &plan.spec.workload {
        Workload::Wasm(task) => Ok(task),
        Workload::Linux(_) => Err(Error::new(Class::Internal, "the wasm backend was given a Linux workload")),
    }
}

/// Listens to the monitor: signals that ask for an end are told, other places on networks taken, and its own end is ours.
fn listen(line: TcpStream, sockets: Arc<Sockets>) -> Receiver<i32> {
    let (tell, orders) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(Some(order)) = link::receive(&line) {
            match order {
                Order::End(signal) => drop(tell.send(signal)),
                Order::Place(places) => {
                    if let Err(e) = sockets.place(places) {
                        // The container's own standard error: its log.
                        eprintln!("wharf: neighbours do not find all of this container's sockets: {e}");
                    }
                    if link::send(&line, &Word::Placed).is_err() {
                        break;
                    }
                }
                Order::Plan(_) | Order::Go => {}
            }
        }
        std::process::exit(ABANDONED);
    });
    orders
}
