//! Placement on machines that are made up: what is chosen, what is refused and how, and what a load is checked for.

use super::{
    Actual, CpuExperts, DeviceReport, DeviceUse, GpuBackend, GpuLayers, Inventory, Kind, ModuleReport, ModuleState,
    PlacementError, PlacementSpec, SplitMode, SystemReport, choose, verify,
};

fn device(name: &str, description: &str, backend: &str, kind: Kind) -> DeviceReport {
    DeviceReport {
        name: name.into(),
        description: description.into(),
        backend: backend.into(),
        api: None,
        driver: None,
        kind,
        memory_free_mb: 8000,
        memory_total_mb: 8192,
        software: super::is_software(description),
    }
}

fn machine(backends: &[&str], gpus: &[(&str, &str)]) -> Inventory {
    let mut devices: Vec<_> = gpus
        .iter()
        .map(|(name, description)| {
            let backend = name.trim_end_matches(|c: char| c.is_ascii_digit());
            device(name, description, backend, Kind::Gpu)
        })
        .collect();
    devices.push(device("CPU", "Some CPU", "CPU", Kind::Cpu));
    let registered = backends.iter().chain(&["CPU"]).map(|name| (*name).to_owned()).collect();
    let mut machine = Inventory { registered, devices, ..Inventory::default() };
    machine.compiled = GpuBackend::GPUS.into_iter().filter(|gpu| machine.is_registered(*gpu)).collect();
    machine
}

fn asked(gpu_backend: GpuBackend) -> PlacementSpec {
    PlacementSpec { gpu_backend, ..PlacementSpec::default() }
}

fn names(devices: &[DeviceReport]) -> Vec<&str> {
    devices.iter().map(|device| device.name.as_str()).collect()
}

const LLVMPIPE: &str = "llvmpipe (LLVM 15.0.6, 256 bits)";

#[test]
fn auto_takes_the_first_backend_with_a_gpu_and_never_mixes_two() {
    let machine = machine(&["CUDA", "Vulkan"], &[("CUDA0", "A"), ("CUDA1", "B"), ("Vulkan0", "A"), ("Vulkan1", "B")]);
    let choice = choose(&machine, &asked(GpuBackend::Auto)).expect("there are GPUs");
    assert_eq!(names(&choice.devices), ["CUDA0", "CUDA1"]);
    assert_eq!(choice.why, "CUDA comes first of what has a GPU here");
}

#[test]
fn auto_goes_to_the_cpu_where_there_is_no_gpu_and_says_why() {
    let why = |machine: &Inventory| {
        let choice = choose(machine, &asked(GpuBackend::Auto)).expect("the CPU is always there");
        assert_eq!(choice.devices, []);
        choice.why
    };
    assert_eq!(why(&machine(&[], &[])), "no GPU backend is compiled in");
    assert_eq!(why(&machine(&["Vulkan"], &[])), "vulkan finds no device");
    assert_eq!(
        why(&machine(&["Vulkan"], &[("Vulkan0", LLVMPIPE)])),
        format!("Vulkan0 ({LLVMPIPE}) draws on the CPU and would be slower than it")
    );
}

#[test]
fn a_gpu_that_shares_the_memory_of_the_cpu_is_no_match_for_one_of_its_own() {
    let mut machine = machine(&["Vulkan"], &[("Vulkan0", "Shared"), ("Vulkan1", "Own"), ("Vulkan2", "Shared too")]);
    (machine.devices[0].kind, machine.devices[2].kind) = (Kind::IntegratedGpu, Kind::IntegratedGpu);
    let chosen = |machine: &Inventory, backend| choose(machine, &asked(backend)).expect("there are GPUs").devices;
    for backend in [GpuBackend::Auto, GpuBackend::Vulkan] {
        assert_eq!(names(&chosen(&machine, backend)), ["Vulkan1"]);
    }
    machine.devices.remove(1);
    assert_eq!(names(&chosen(&machine, GpuBackend::Auto)), ["Vulkan0"]);
}

#[test]
fn a_backend_that_was_named_runs_or_fails() {
    let vulkan = asked(GpuBackend::Vulkan);
    let choice = choose(&machine(&["Vulkan"], &[("Vulkan0", LLVMPIPE)]), &vulkan).expect("it was asked for");
    assert_eq!(names(&choice.devices), ["Vulkan0"]);

    let error = choose(&machine(&["CUDA"], &[("CUDA0", "A")]), &vulkan).expect_err("not compiled in");
    assert_eq!(
        error,
        PlacementError::NotCompiledIn { asked: "vulkan".into(), compiled: vec!["cuda".into(), "cpu".into()] }
    );
    let error = choose(&machine(&["Vulkan"], &[]), &vulkan).expect_err("no device");
    assert!(error.to_string().contains("GGML_VK_VISIBLE_DEVICES"), "{error}");

    // Seen on a machine whose loader lacked a library: the backend is in the binary, and does not register.
    let dead = Inventory { compiled: vec![GpuBackend::Vulkan], ..machine(&[], &[]) };
    let error = choose(&dead, &vulkan).expect_err("it cannot start");
    assert!(error.to_string().contains("compiled in, but it finds no device: its driver failed to start"), "{error}");

    let mut opencl = machine(&["OpenCL"], &[]);
    opencl.complaints = vec!["ggml_opencl: drop unsupported device 'pthread-znver4'.".into()];
    let error = choose(&opencl, &asked(GpuBackend::OpenCl)).expect_err("no device");
    assert!(error.to_string().contains("drop unsupported device 'pthread-znver4'"), "{error}");
}

#[test]
fn a_backend_that_is_a_module_is_missed_by_its_place_and_refused_with_its_reason() {
    let refused = ModuleReport {
        path: "/opt/shimmy/libggml-hip.so".into(),
        backend: "hip".into(),
        variant: None,
        state: ModuleState::Refused,
        reason: Some("libamdhip64.so: cannot open shared object file".into()),
    };
    let reason = "/opt/shimmy/libggml-hip.so was refused: libamdhip64.so: cannot open shared object file";
    let machine =
        Inventory { searched: vec!["/opt/shimmy".into()], modules: vec![refused], ..machine(&["Vulkan"], &[]) };
    let error = |asked| choose(&machine, &asked).expect_err("it is not there").to_string();
    assert!(error(asked(GpuBackend::OpenCl)).contains("no libggml-opencl in /opt/shimmy"));
    // ROCm's module is what `cuda` means there, with a device that is named as well as without.
    for devices in [vec![], vec!["CUDA0".to_owned()]] {
        let error = error(PlacementSpec { devices, ..asked(GpuBackend::Cuda) });
        assert!(error.contains(reason), "{error}");
    }
    // Vulkan was loaded, and the CPU is chosen with all that is known.
    assert!(error(asked(GpuBackend::Vulkan)).contains("finds no device"));
    let choice = choose(&machine, &asked(GpuBackend::Auto)).expect("the CPU is always there");
    assert_eq!(choice.why, format!("vulkan finds no device; {reason}"));
    let report = SystemReport::new(&machine);
    assert_eq!(report.backends[0].reason.as_deref(), Some(reason));
    assert_eq!(report.modules.len(), 1);
}

#[test]
fn devices_are_taken_by_name() {
    let machine = machine(&["CUDA", "Vulkan"], &[("CUDA0", "A"), ("CUDA1", "B"), ("Vulkan0", "A")]);
    let with = |gpu_backend, devices: &[&str]| {
        let devices = devices.iter().map(|name| (*name).to_owned()).collect();
        choose(&machine, &PlacementSpec { gpu_backend, devices, ..PlacementSpec::default() })
    };
    assert_eq!(names(&with(GpuBackend::Auto, &["cuda1", "CUDA0"]).expect("they exist").devices), ["CUDA1", "CUDA0"]);
    let text = |gpu_backend, devices: &[&str]| with(gpu_backend, devices).expect_err("refused").to_string();
    assert_eq!(
        text(GpuBackend::Auto, &["CUDA7"]),
        "--device CUDA7: there is no such device; there are CUDA0 (A), CUDA1 (B), Vulkan0 (A)"
    );
    assert!(text(GpuBackend::Auto, &["CUDA0", "Vulkan0"]).contains("belong to two backends"));
    assert!(text(GpuBackend::Vulkan, &["CUDA0"]).contains("--gpu-backend vulkan excludes --device CUDA0"));
    assert!(text(GpuBackend::Cpu, &["CUDA0"]).contains("--gpu-backend cpu excludes --device CUDA0"));
}

#[test]
fn options_of_a_gpu_are_not_lost_on_a_machine_without_one() {
    let none = machine(&["Vulkan"], &[]);
    let layers = |n| PlacementSpec { gpu_layers: Some(GpuLayers::Count(n)), ..PlacementSpec::default() };
    assert!(matches!(choose(&none, &layers(10)), Err(PlacementError::NoDevice { .. })));
    assert_eq!(choose(&none, &layers(0)).expect("the CPU").devices, []);
    let all = PlacementSpec { gpu_layers: Some(GpuLayers::All), ..PlacementSpec::default() };
    assert!(matches!(choose(&none, &all), Err(PlacementError::NoDevice { .. })));
    let one = PlacementSpec { split_mode: SplitMode::None, ..PlacementSpec::default() };
    assert!(matches!(choose(&none, &one), Err(PlacementError::NoDevice { .. })));
    let cpu = choose(&none, &PlacementSpec { gpu_backend: GpuBackend::Cpu, ..one }).expect_err("refused");
    assert_eq!(cpu.to_string(), "--gpu-backend cpu excludes --split-mode none");
}

#[test]
fn without_a_number_of_layers_a_gpu_that_is_asked_for_holds_all() {
    let machine = machine(&["CUDA"], &[("CUDA0", "A")]);
    let layers = |asked: PlacementSpec| choose(&machine, &asked).expect("it exists").layers;
    assert_eq!(layers(PlacementSpec::default()), GpuLayers::Auto);
    assert_eq!(layers(asked(GpuBackend::Cuda)), GpuLayers::All);
    assert_eq!(layers(PlacementSpec { devices: vec!["CUDA0".into()], ..PlacementSpec::default() }), GpuLayers::All);
    assert_eq!(layers(PlacementSpec { split_mode: SplitMode::None, ..PlacementSpec::default() }), GpuLayers::All);
    let fitted = PlacementSpec { gpu_layers: Some(GpuLayers::Auto), ..asked(GpuBackend::Cuda) };
    assert_eq!(layers(fitted), GpuLayers::Auto);
}

#[test]
fn a_split_fits_the_devices() {
    let machine = machine(&["CUDA"], &[("CUDA0", "A"), ("CUDA1", "B")]);
    let split = |tensor_split: &[f32]| {
        choose(&machine, &PlacementSpec { tensor_split: tensor_split.to_vec(), ..PlacementSpec::default() })
    };
    assert!(split(&[3.0, 1.0]).is_ok());
    for wrong in [&[1.0][..], &[1.0, -1.0], &[0.0, 0.0], &[1.0, f32::NAN]] {
        assert!(matches!(split(wrong), Err(PlacementError::Contradiction(_))), "{wrong:?}");
    }
    let main =
        |n, split_mode| choose(&machine, &PlacementSpec { main_gpu: Some(n), split_mode, ..PlacementSpec::default() });
    let text = main(2, SplitMode::None).expect_err("too high").to_string();
    assert_eq!(text, "--main-gpu 2: there are 2 devices, counted from 0: CUDA0 (A), CUDA1 (B)");
    assert!(matches!(main(1, SplitMode::Layer), Err(PlacementError::Contradiction(_))));
    assert_eq!(names(main(1, SplitMode::None).expect("it exists").holders()), ["CUDA1"]);
}

fn actual(layers: &[(&str, usize)], weights: &[(&str, u64)]) -> Actual {
    let layers = layers.iter().flat_map(|(name, n)| std::iter::repeat_n((*name).to_owned(), *n)).collect();
    let memory = weights.iter().map(|(name, bytes)| DeviceUse {
        name: (*name).into(),
        weights_bytes: *bytes,
        ..DeviceUse::default()
    });
    Actual { layers, memory: memory.collect() }
}

/// The mistake of 1.x: the backend was asked for, and all layers went to the CPU.
#[test]
fn a_model_on_the_cpu_is_no_answer_to_a_gpu() {
    let choice = choose(&machine(&["Vulkan"], &[("Vulkan0", "A")]), &asked(GpuBackend::Vulkan)).expect("it exists");
    let error = verify(&choice, &actual(&[("CPU", 30)], &[("CPU", 1 << 30)])).expect_err("not what was asked");
    assert_eq!(
        error,
        PlacementError::Differs {
            planned: "Vulkan0, 30 of 30 layers".into(),
            found: "Vulkan0 (0 layers, 0 MB of weights), CPU (30 layers, 1024 MB of weights)".into(),
        }
    );
    verify(&choice, &actual(&[("CPU", 1), ("Vulkan0", 29)], &[("Vulkan0", 1)])).expect_err("one layer is missing");
    verify(&choice, &actual(&[("Vulkan0", 30)], &[("CPU", 1)])).expect_err("layers without weights");
    let report = verify(&choice, &actual(&[("Vulkan0", 30)], &[("CPU", 1), ("Vulkan0", 9)])).expect("as asked");
    assert_eq!((report.gpu_layers, report.total_layers, report.backend.as_str()), (30, 30, "vulkan"));
    assert_eq!(report.devices[0].weights_bytes, 9);
    assert_eq!(report.to_string(), "vulkan, 30 of 30 layers on A");
}

#[test]
fn a_model_on_a_gpu_is_no_answer_to_the_cpu() {
    let choice = choose(&machine(&["Vulkan"], &[("Vulkan0", "A")]), &asked(GpuBackend::Cpu)).expect("always there");
    verify(&choice, &actual(&[("Vulkan0", 30)], &[("Vulkan0", 9)])).expect_err("not what was asked");
    verify(&choice, &actual(&[("CPU", 30)], &[("CPU", 9)])).expect("as asked");
}

/// llama.cpp counts the output as a layer, and places it first.
#[test]
fn some_layers_are_the_last_ones() {
    let some = PlacementSpec { gpu_layers: Some(GpuLayers::Count(11)), ..PlacementSpec::default() };
    let choice = choose(&machine(&["CUDA"], &[("CUDA0", "A")]), &some).expect("it exists");
    verify(&choice, &actual(&[("CPU", 20), ("CUDA0", 10)], &[("CUDA0", 9)])).expect("as asked");
    verify(&choice, &actual(&[("CUDA0", 10), ("CPU", 20)], &[("CUDA0", 9)])).expect_err("the wrong ones");
    let many = PlacementSpec { gpu_layers: Some(GpuLayers::Count(99)), cpu_experts: CpuExperts::All, ..some };
    let choice = choose(&machine(&["CUDA"], &[("CUDA0", "A")]), &many).expect("it exists");
    verify(&choice, &actual(&[("CUDA0", 30)], &[("CUDA0", 9)])).expect("there are not more");
}

#[test]
fn the_report_says_of_each_backend_what_it_lacks() {
    let report = SystemReport::new(&machine(&["Vulkan"], &[]));
    let reason = |name: &str| {
        let backend = report.backends.iter().find(|backend| backend.name == name).expect("it is listed");
        backend.reason.clone().expect("it cannot be used")
    };
    assert_eq!(reason("cuda"), "not compiled in; build with --features llama-cuda");
    assert!(reason("vulkan").contains("no driver"));
    assert_eq!((report.auto.as_str(), report.auto_why.as_str()), ("cpu", "vulkan finds no device"));
}

#[test]
fn what_models_may_take_limits_what_is_free() {
    const GIB: u64 = 1 << 30;
    let machine = machine(&["CUDA"], &[("CUDA0", "A"), ("CUDA1", "B")]);
    let limit = |device: &str| match device {
        "CUDA0" => Some(2 * GIB),
        "CUDA1" => Some(64 * GIB),
        _ => None,
    };
    let within = machine.within(&limit);
    let free: Vec<u64> = within.devices.iter().map(|device| device.memory_free_mb).collect();
    assert_eq!(free, [2048, 8000, 8000], "never more than is free");

    let mut choice = choose(&machine, &asked(GpuBackend::Auto)).expect("there are GPUs");
    choice.share_within(&machine);
    assert_eq!(choice.tensor_split, [0.0; 0], "llama.cpp shares by the same");
    choice.share_within(&within);
    assert_eq!(choice.tensor_split, [2048.0, 8000.0]);
    let split = PlacementSpec { tensor_split: vec![1.0, 1.0], ..asked(GpuBackend::Auto) };
    let mut choice = choose(&machine, &split).expect("there are GPUs");
    choice.share_within(&within);
    assert_eq!(choice.tensor_split, [1.0, 1.0], "as it was asked for");
}
