//! `wasi:cli/environment`: arguments, variables and the working directory.
//!
//! All guests of a task have the same. A server makes a guest for each request: nothing is copied for it before it asks.

use wasmtime::component::HasData;
use wasmtime_wasi::p2::bindings::cli::environment;
use wasmtime_wasi::p3::bindings::cli::environment as environment_p3;

use crate::task::WasmTask;

/// What a task's guests are told.
pub(crate) struct Environment {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    directory: Option<String>,
}

impl Environment {
    pub(crate) fn of(task: &WasmTask) -> Self {
        let mut variables = task.env.clone();
        let directory = (task.cwd != "/").then(|| task.cwd.clone());
        if let Some(directory) = &directory
            // The Go runtime takes its working directory from here.
            && variables.iter().all(|(name, _)| name != "PWD")
        {
            variables.push(("PWD".to_owned(), directory.clone()));
        }
        Environment { arguments: task.args.clone(), variables, directory }
    }
}

/// A store whose guest has an environment.
pub(crate) trait HasEnvironment: 'static {
    fn environment(&self) -> &Environment;
}

impl HasData for Environment {
    type Data<'a> = &'a Environment;
}

impl environment::Host for &Environment {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.variables.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.arguments.clone())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.directory.clone())
    }
}

impl environment_p3::Host for &Environment {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        environment::Host::get_environment(self)
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        environment::Host::get_arguments(self)
    }

    fn get_initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        environment::Host::initial_cwd(self)
    }
}
