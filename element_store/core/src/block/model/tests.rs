use super::*;

fn wait<T: Send + 'static>(act: impl FnOnce(Done<T>)) -> Result<T> {
    let (sender, receiver) = channel();
    act(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap()
}

fn one(size_bytes: u64) -> (Model, VolumeId, Arc<dyn BlockDevice>) {
    let model = Model::new();
    let id = model.add("/volumes/one", size_bytes, 512);
    let device = model.open(id).unwrap();
    (model, id, device)
}

fn read(device: &dyn BlockDevice, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    device.read(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_not_flushed_is_old_or_new_and_never_torn() {
    let (mut olds, mut news) = (0, 0);
    for seed in 1..50_u64 {
        let (model, _, device) = one(1 << 20);
        wait(|done| device.write(0, vec![1; 8192], true, done)).unwrap();
        wait(|done| device.write(0, vec![2; 8192], false, done)).unwrap();
        model.cut_power(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for page in 0..2 {
            let bytes = read(&*device, page * 4096, 4096);
            assert!(bytes.iter().all(|&byte| byte == bytes[0]));
            if bytes[0] == 1 { olds += 1 } else { news += 1 }
        }
    }
    assert!(olds > 0 && news > 0, "{olds} {news}");
}

#[test]
fn what_is_flushed_stays() {
    let (model, _, device) = one(1 << 20);
    wait(|done| device.write(512, vec![7; 1024], false, done)).unwrap();
    wait(|done| device.flush(done)).unwrap();
    (0..20).for_each(|seed| model.cut_power(seed));
    assert_eq!(read(&*device, 512, 1024), vec![7; 1024]);
}

#[test]
fn zeros_free_whole_pages() {
    let (_model, _, device) = one(1 << 20);
    wait(|done| device.write(0, vec![7; 5 * 4096], false, done)).unwrap();
    wait(|done| device.zero(512, 2 * 4096, false, done)).unwrap();
    assert_eq!(device.allocated(0..1 << 20).unwrap(), [0..4096, 2 * 4096..5 * 4096]);
    assert_eq!(read(&*device, 0, 512), [7; 512]);
    assert_eq!(read(&*device, 512, 8192), [0; 8192]);
    assert_eq!(read(&*device, 512 + 8192, 512), [7; 512]);
}

#[test]
fn compare_and_write_changes_all_or_nothing() {
    let (_model, _, device) = one(1 << 20);
    assert!(wait(|done| device.compare_and_write(0, vec![0; 512], vec![5; 512], true, done)).unwrap());
    assert!(!wait(|done| device.compare_and_write(0, vec![0; 512], vec![6; 512], true, done)).unwrap());
    assert_eq!(read(&*device, 0, 512), [5; 512]);
}

#[test]
fn past_the_end_nothing_changes() {
    let (_model, _, device) = one(8192);
    for (offset, length) in [(8192, 512), (4096, 8192), (u64::MAX - 511, 512)] {
        let result = wait(|done| device.write(offset, vec![1; length], false, done));
        assert_eq!(result, Err(BlockError::OutOfRange));
    }
    assert_eq!(wait(|done| device.copy(u64::MAX, 0, 512, false, done)), Err(BlockError::OutOfRange));
    assert_eq!(read(&*device, 0, 8192), [0; 8192]);
}

#[test]
fn a_script_is_followed() {
    let (model, id, device) = one(8192);
    model.script(id, ".sd");
    assert_eq!(device.read(0, &mut [0; 512]), Ok(()));
    assert_eq!(wait(|done| device.write(0, vec![1; 512], false, done)), Err(BlockError::OutOfSpace));
    assert!(matches!(device.read(0, &mut [0; 512]), Err(BlockError::Damaged(_))));
    assert_eq!(read(&*device, 0, 512), [0; 512]);
}

#[test]
fn held_changes_are_not_done() {
    let (model, _, device) = one(8192);
    model.hold();
    let (sender, receiver) = channel();
    device.write(0, vec![1; 512], false, Box::new(move |result| sender.send(result).unwrap()));
    assert_eq!(read(&*device, 0, 512), [0; 512]);
    assert!(receiver.try_recv().is_err());
    model.resume();
    receiver.recv().unwrap().unwrap();
    assert_eq!(read(&*device, 0, 512), [1; 512]);
}

#[test]
fn changes_are_noticed_and_handles_counted() {
    let (model, id, device) = one(8192);
    let seen = model.wait_changed(0, Duration::ZERO);
    assert_eq!(model.wait_changed(seen, Duration::ZERO), seen);
    model.resize(id, 4096);
    assert_ne!(model.wait_changed(seen, Duration::from_secs(10)), seen);
    assert_eq!((device.volume().size_bytes, model.handles(id)), (4096, 1));
    drop(device);
    assert_eq!(model.handles(id), 0);
    model.remove(id);
    assert!(model.open(id).is_err());
}
