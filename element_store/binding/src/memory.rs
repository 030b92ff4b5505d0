//! Devices in memory that lose power, rot and fail on command: for tests of what is built on the store.

use crate::errors::raise;
use pyo3::prelude::*;
use std::sync::Arc;
use trefoil_core::device::Device;
use trefoil_core::device::fault::FaultScript;
use trefoil_core::device::memory::{MemoryDevice, PowerSwitch};
use trefoil_core::error::Error;

const DEVICES_MAX: usize = 64;

#[pyclass(frozen, module = "element_store._core")]
pub struct MemoryDevices {
    devices: Vec<Arc<MemoryDevice>>,
    power: Arc<PowerSwitch>,
}

impl MemoryDevices {
    pub fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect()
    }

    fn at(&self, index: usize) -> PyResult<&MemoryDevice> {
        let device = self.devices.get(index);
        device
            .map(Arc::as_ref)
            .ok_or_else(|| raise(Error::Invalid(format!("device {index} of {}", self.devices.len()))))
    }
}

#[pymethods]
impl MemoryDevices {
    #[new]
    fn new(count: usize, length: u64) -> PyResult<Self> {
        if count > DEVICES_MAX {
            return Err(raise(Error::Limit(format!("at most {DEVICES_MAX} devices"))));
        }
        let power = PowerSwitch::new();
        let devices = (0..count)
            .map(|index| Arc::new(MemoryDevice::powered(format!("memory-{index}"), length, power.clone())))
            .collect();
        Ok(Self { devices, power })
    }

    fn script(&self, index: usize, text: &str) -> PyResult<()> {
        self.at(index)?.set_script(FaultScript::parse(text).map_err(raise)?);
        Ok(())
    }

    fn lose(&self, index: usize) -> PyResult<()> {
        self.at(index).map(MemoryDevice::lose)
    }

    fn restore(&self, index: usize) -> PyResult<()> {
        self.at(index).map(MemoryDevice::restore)
    }

    fn wipe(&self, index: usize) -> PyResult<()> {
        self.at(index).map(MemoryDevice::wipe)
    }

    fn flip(&self, index: usize, offset: u64, bit: u8) -> PyResult<()> {
        let device = self.at(index)?;
        if offset >= device.len() || bit > 7 {
            return Err(raise(Error::Invalid(format!("bit {bit} of byte {offset} of {}", device.len()))));
        }
        device.flip(offset, bit);
        Ok(())
    }

    fn cut_power(&self, after: u64) {
        self.power.cut_after(after);
    }

    fn restore_power(&self, seed: u64) {
        for (index, device) in self.devices.iter().enumerate() {
            device.crash(seed.wrapping_mul(DEVICES_MAX as u64) + index as u64);
        }
        self.power.restore();
    }
}
