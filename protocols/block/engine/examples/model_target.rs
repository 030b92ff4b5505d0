//! Serves volumes in memory, to point hosts at: `model_target [ADDRESS [MIB]]`, `127.0.0.1:24420` and 256 if none is given.
//!
//! Anybody may connect. Volume 1 has blocks of 512 bytes, volume 2 of 4096. The environment's ADVERTISE is the address that discovery tells, SECONDS how often
//! the target is stopped and started again over the same volumes (hosts must not notice), RESIZE a number of MiB that volume 1 has after RESIZE_AFTER seconds, or 5,
//! SECRET what hosts must prove to know.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use trefoil_core::block::model::Model;
use trefoil_nvme::{Access, Config, Host, Target};

const NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:7265666f-696c-4d6f-8465-6c0000000001";

fn number(name: &str) -> Result<Option<u64>, std::num::ParseIntError> {
    std::env::var(name).ok().map(|text| text.parse()).transpose()
}

fn access() -> Result<Access, Box<dyn std::error::Error>> {
    let mut access = Access {
        any_host: true,
        ..Access::default()
    };
    if let (Ok(nqn), Ok(secret)) = (std::env::var("HOST"), std::env::var("SECRET")) {
        access.hosts = vec![Host {
            secret: Some(secret.parse()?),
            ..Host::new(&nqn)
        }];
        access.any_host = false;
    }
    Ok(access)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:24420".into()).parse()?;
    let mib: u64 = arguments.next().map_or(Ok(256), |mib| mib.parse())?;
    let model = Arc::new(Model::new());
    let first = model.add("/volumes/one", mib << 20, 512);
    model.add("/volumes/two", mib << 20, 4096);
    let mut config = Config::new(listen, NQN, "MODEL1");
    config.access = access()?;
    config.advertise = std::env::var("ADVERTISE")
        .ok()
        .map(|address| address.parse())
        .transpose()?
        .into_iter()
        .collect();
    let mut target = Target::start(model.clone(), config.clone())?;
    config.listen = target.addresses().to_vec();
    let address = config.listen[0];
    println!("nvme connect -t tcp -a {} -s {} -n {NQN}", address.ip(), address.port());
    if let Some(mib) = number("RESIZE")? {
        sleep(Duration::from_secs(number("RESIZE_AFTER")?.unwrap_or(5)));
        model.resize(first, mib << 20);
        println!("resized");
    }
    let seconds = number("SECONDS")?;
    loop {
        sleep(Duration::from_secs(seconds.unwrap_or(60)));
        for session in target.sessions() {
            println!("{session:?}");
        }
        if seconds.is_some() {
            target.stop();
            target = Target::start(model.clone(), config.clone())?;
            println!("restarted");
        }
    }
}
