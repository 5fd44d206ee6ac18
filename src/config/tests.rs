//! What a config file may say, what is said of a wrong one, and who wins.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::placement::{CpuExperts, GpuBackend, GpuLayers};
use crate::runner::{GenerateDefaults, ModelSource, ProjectorSpec};

fn error(text: &str) -> String {
    parse(text).expect_err("it is wrong").to_string()
}

/// Each broken file with all that is said of it.
#[test]
fn errors_say_where_and_what_is_allowed() {
    for (text, expected) in BROKEN {
        assert_eq!(error(text), expected.trim_matches('\n'), "for this file:\n{text}");
    }
}

#[test]
fn what_is_wrong_among_line_ends_has_its_place_before_them() {
    let problem = Problem::new("a = 1\r\r\n", 6..8, "why");
    assert_eq!(problem.to_string(), "1:6: why\n  |\n1 | a = 1\n  |      ^");
}

const BROKEN: &[(&str, &str)] = &[
    (
        "bind = ",
        "
1:8: this is no TOML: string values must be quoted, expected literal string
  |
1 | bind = 
  |        ^",
    ),
    (
        "parallel = 1\r\nparallel = 2\r\n",
        "
2:1: this is no TOML: duplicate key
  |
2 | parallel = 2
  | ^^^^^^^^",
    ),
    (
        "# größer\n\tparralel = 4",
        "
2:2: there is no setting `parralel` here; did you mean `parallel`?
  |
2 | \tparralel = 4
  | \t^^^^^^^^",
    ),
    (
        "colour = 'blue'",
        "
1:1: there is no setting `colour`; `shimmy config show` shows all that there are
  |
1 | colour = 'blue'
  | ^^^^^^",
    ),
    (
        "ctx-size = 4096",
        "
1:1: there is no setting `ctx-size` here; did you mean `ctx_size`?
  |
1 | ctx-size = 4096
  | ^^^^^^^^",
    ),
    (
        "parallel = 257\nqueue = \"long\"",
        "
1:12: parallel is 257; it must be a whole number from 1 to 256
  |
1 | parallel = 257
  |            ^^^
2:9: queue is \"long\"; it must be a whole number from 0 to 4294967295
  |
2 | queue = \"long\"
  |         ^^^^^^",
    ),
    (
        "gpu_backend = 'cdua'",
        "
1:15: gpu_backend is \"cdua\"; it must be one of auto, cpu, cuda, vulkan, opencl, metal; did you mean \"cuda\"?
  |
1 | gpu_backend = 'cdua'
  |               ^^^^^^",
    ),
    (
        "device = ['CUDA0', 1]",
        "
1:20: device[1] is 1; it must be a device as `shimmy gpu-info` names it, e.g. \"CUDA0\"
  |
1 | device = ['CUDA0', 1]
  |                    ^",
    ),
    (
        "gpu_layers = 'most'",
        "
1:14: gpu_layers is \"most\"; it must be \"all\", \"auto\" or a number of layers
  |
1 | gpu_layers = 'most'
  |              ^^^^^^",
    ),
    (
        "log = 'shimmy=verbose'",
        "
1:7: log is \"shimmy=verbose\"; it must be a filter as RUST_LOG has it, e.g. \"warn,shimmy=debug\"
  |
1 | log = 'shimmy=verbose'
  |       ^^^^^^^^^^^^^^^^",
    ),
    (
        "temperature = 1",
        "
1:1: `temperature` belongs into the section [sampling]
  |
1 | temperature = 1
  | ^^^^^^^^^^^",
    ),
    (
        "[sampling]\ntop_p = nan\nparallel = 2",
        "
2:9: top_p is nan; it must be a number from 0 to 1
  |
2 | top_p = nan
  |         ^^^
3:1: `parallel` is no matter of sampling: it belongs to the top of the file, in front of the first [section], or into a model's section
  |
3 | parallel = 2
  | ^^^^^^^^",
    ),
    (
        "[models.a]\nbind = 'x'\ntop_k = 1",
        "
2:1: `bind` is the server's: it belongs to the top of the file, in front of the first [section]
  |
2 | bind = 'x'
  | ^^^^
3:1: `top_k` belongs into the section [models.a.sampling]
  |
3 | top_k = 1
  | ^^^^^",
    ),
    (
        "[models.a]\npath = 'a.gguf'\nbase = 'b'",
        "
3:8: give `path` or `base`, not both: each says which file \"a\" is
  |
3 | base = 'b'
  |        ^^^",
    ),
    (
        "[models.a]\nsource = 'phi-3'\ncontext = 5\nctx_size = 6",
        "
2:10: source is \"phi-3\"; it must be what `shimmy pull` takes, e.g. \"hf:OWNER/REPOSITORY\" or \"ollama:NAME:TAG\"
  |
2 | source = 'phi-3'
  |          ^^^^^^^
4:1: `ctx_size` and `context` are two names of one setting; give one of them
  |
4 | ctx_size = 6
  | ^^^^^^^^",
    ),
    (
        "[models.a]\nadapters = [{ path = 'x', scale = 'y' }, { scale = 1 }, { file = 'x' }]",
        "
2:35: adapters[0].scale is \"y\"; it must be a number from -1000 to 1000
  |
2 | adapters = [{ path = 'x', scale = 'y' }, { scale = 1 }, { file = 'x' }]
  |                                   ^^^",
    ),
    (
        "[models.a]\nadapters = { file = 'x' }",
        "
2:14: adapters is a table with `file`; it must be a path, or a table like { path = \"adapter.gguf\", scale = 0.5 }
  |
2 | adapters = { file = 'x' }
  |              ^^^^",
    ),
    (
        "[models.one]\nalias = 'default'\n[models.two]\nalias = ['ONE', 'Default']\n[models.One]\n",
        "
4:9: the alias \"ONE\" is a model's name already
  |
4 | alias = ['ONE', 'Default']
  |         ^^^^^^^^^^^^^^^^^^
4:9: the alias \"Default\" is a name of \"one\" already
  |
4 | alias = ['ONE', 'Default']
  |         ^^^^^^^^^^^^^^^^^^
5:9: there is a model \"one\" already; names ignore case
  |
5 | [models.One]
  |         ^^^",
    ),
    (
        "[models.a]\nbase = 'b'\n[models.b]\nbase = 'A'\n",
        "
2:8: the base of \"a\" is, in the end, \"a\" itself
  |
2 | base = 'b'
  |        ^^^
4:8: the base of \"b\" is, in the end, \"b\" itself
  |
4 | base = 'A'
  |        ^^^",
    ),
    (
        "cpu_moe = true\nn_cpu_moe = 3\nmodels = 3",
        "
2:13: give `cpu_moe` or `n_cpu_moe`, not both
  |
2 | n_cpu_moe = 3
  |             ^
3:10: models must be a table of models, e.g. [models.champion]
  |
3 | models = 3
  |          ^",
    ),
    (
        "[models]\n\"a b\" = {}\nc = 1",
        "
2:1: \"a b\" is no name for a model; it must be one without spaces
  |
2 | \"a b\" = {}
  | ^^^^^
3:1: models.c must be a table: [models.c]
  |
3 | c = 1
  | ^",
    ),
];

#[test]
fn a_line_that_may_hold_a_key_is_not_shown() {
    for text in ["api_key = ['secret'", "api_key = [\n  'secret=',\n  'more', 3 3]", "api_key = 'secret' x"] {
        let error = error(text);
        assert!(error.contains("this is no TOML") && !error.contains("secret") && !error.contains("more"), "{error}");
    }
    for text in [
        "api-key = 'secret'",
        "API_KEYS = ['secret']",
        "\"api_key\" = ['secret', 5]",
        "server.api_key = 'secret'",
        "server = { api_key = 'secret' }",
        "\"api-key\" = [\n'secret' 3]",
        "'api_key' = [\n'secret', 5]",
    ] {
        assert!(!error(text).contains("secret"), "{}", error(text));
    }
    assert!(error("api_key_file = 5").contains("api_key_file = 5"), "a file's name is no key");
}

#[test]
fn a_pair_of_base_and_adapter_is_three_lines() {
    let settings = parse("[models.champion]\npath = 'phi-3.gguf'\nadapters = 'champion.gguf'").expect("it is right");
    let model = settings.find("Champion:latest").expect("it has a section");
    assert_eq!(keys::get(&model.own.path), Some(PathBuf::from("phi-3.gguf")));
    let adapter = Adapter { path: "champion.gguf".into(), scale: 1.0 };
    assert_eq!(keys::get(&model.own.adapters), Some(vec![adapter]));
}

#[test]
fn an_adapter_may_carry_a_scale() {
    let read = |text: &str| text.parse::<Adapter>();
    assert_eq!(read("a.gguf"), Ok(Adapter { path: "a.gguf".into(), scale: 1.0 }));
    assert_eq!(read("a.gguf:0.5"), Ok(Adapter { path: "a.gguf".into(), scale: 0.5 }));
    assert_eq!(read("C:\\a.gguf"), Ok(Adapter { path: "C:\\a.gguf".into(), scale: 1.0 }));
    assert!(read("a.gguf:inf").is_err());
}

/// A configuration from a file's text, and from options.
fn config(text: &str, asked: LoadSettings) -> Config {
    let file = File { path: Some("/etc/config.toml".into()), text: text.into(), settings: parse(text).expect("right") };
    let mut config = Config { asked: Asked { load: asked, ..Asked::default() }, file };
    check::locate(&mut config.file.settings, Path::new("/etc"));
    config
}

fn option<T>(value: T) -> Option<Set<T>> {
    Some(Set { value, origin: Origin::Option("--it".into()) })
}

/// For all combinations of who sets a value: the option wins over the section, it over the file, it over the default.
#[test]
fn the_nearest_setting_wins() {
    for who in 0..8_u32 {
        let (by_option, by_section, by_file) = (who & 1 != 0, who & 2 != 0, who & 4 != 0);
        let file = if by_file { "queue = 1\nctx_size = 1\n[sampling]\ntop_k = 1\nmin_p = 0.5\n" } else { "" };
        let section = if by_section { "queue = 2\ncontext = 2\nsampling = { top_k = 2 }\n" } else { "" };
        let text = format!("{file}[models.m]\npath = 'm.gguf'\n{section}");
        let asked = LoadSettings { queue: option(3).filter(|_| by_option), ..LoadSettings::default() };
        let catalog = config(&text, asked).catalog();
        let spec = &catalog.models["m"].spec;
        let queue = [(by_option, 3), (by_section, 2), (by_file, 1), (true, 64)];
        let expected = queue.iter().find(|(set, _)| *set).map(|(_, value)| *value);
        assert_eq!(Some(spec.serve.queue), expected, "{who}");
        let by_text = if by_section { Some(2) } else { by_file.then_some(1) };
        assert_eq!((spec.context_tokens, spec.defaults.sampling.top_k), (by_text, by_text), "{who}");
        assert_eq!(spec.defaults.sampling.min_p, by_file.then_some(0.5));
        assert_eq!(spec.source, ModelSource::Gguf { path: "/etc/m.gguf".into() });
    }
}

#[test]
fn the_cpu_takes_what_is_said_of_gpus_with_it_and_experts_give_way_together() {
    let text = "gpu_backend = 'cuda'\ndevice = 'CUDA1'\ngpu_layers = 7\ncpu_moe = true\n[models.m]\npath = 'm.gguf'\n";
    let placement = |asked| config(text, asked).catalog().models["m"].spec.placement.clone();
    let as_written = placement(LoadSettings::default());
    assert_eq!((as_written.gpu_backend, as_written.gpu_layers), (GpuBackend::Cuda, Some(GpuLayers::Count(7))));
    assert_eq!((&*as_written.devices, as_written.cpu_experts), (&["CUDA1".to_owned()][..], CpuExperts::All));
    let on_cpu = placement(LoadSettings { gpu_backend: option(GpuBackend::Cpu), ..LoadSettings::default() });
    assert!(!on_cpu.asks_for_gpu(), "{on_cpu:?}");
    let experts = placement(LoadSettings { n_cpu_moe: option(3), ..LoadSettings::default() }).cpu_experts;
    assert_eq!(experts, CpuExperts::First(3));
}

#[test]
fn a_section_takes_over_what_its_base_says() {
    let text = "[models.base]\npath = 'b.gguf'\nctx_size = 10\nparallel = 3\nsampling.seed = 1\nadapters = 'a.gguf'\nalias = 'b'
[models.child]\nbase = 'B'\nparallel = 4\nadapters = [{ path = 'c.gguf', scale = 0.5 }]\nsampling.top_k = 2";
    let catalog = config(text, LoadSettings::default()).catalog();
    let spec = &catalog.models["child"].spec;
    assert_eq!(spec.source, ModelSource::Gguf { path: "/etc/b.gguf".into() });
    assert_eq!((spec.context_tokens, spec.serve.parallel), (Some(10), Some(4)));
    assert_eq!((spec.defaults.sampling.seed, spec.defaults.sampling.top_k), (Some(1), Some(2)));
    assert_eq!(spec.adapters, [("/etc/c.gguf".into(), 0.5)], "adapters are the section's own");
    assert_eq!(catalog.aliases.get("b").map(String::as_str), Some("base"));
}

#[test]
fn a_projector_is_named_or_none() {
    let text = "[models.sees]\npath = 's.gguf'\nmmproj = 'p.gguf'
[models.blind]\nbase = 'sees'\nmmproj = 'none'";
    let catalog = config(text, LoadSettings::default()).catalog();
    let projector = |name: &str| catalog.models[name].spec.projector.clone();
    assert_eq!(projector("sees"), Some(ProjectorSpec { path: "/etc/p.gguf".into(), found: false }));
    assert_eq!(projector("blind"), None);
}

#[test]
fn a_model_that_drafts_is_named_like_any_other_and_never_drafts_for_itself() {
    let text = "draft_model = 'small'
[models.small]\npath = 's.gguf'
[models.big]\npath = 'b.gguf'\ndraft_tokens = 3
[models.other]\npath = 'o.gguf'\ndraft_model = './d.gguf'
[models.alone]\npath = 'a.gguf'\ndraft_model = 'none'
[models.lost]\npath = 'l.gguf'\ndraft_model = 'smal'";
    let catalog = config(text, LoadSettings::default()).catalog();
    let spec = |name: &str| &catalog.models[name].spec;
    let drafts = ["small", "big", "other", "alone"].map(|name| spec(name).draft.as_deref());
    assert_eq!(drafts, [None, Some(Path::new("/etc/s.gguf")), Some(Path::new("/etc/./d.gguf")), None]);
    assert_eq!([spec("big").serve.draft_tokens, spec("other").serve.draft_tokens], [3, 8]);
    let why = "there is no model \"smal\" on this machine that could draft; did you mean \"small\"?";
    assert_eq!(spec("lost").source, ModelSource::Absent { why: why.into() }, "it is not run without");
}

/// What the tables call a default is what is taken.
#[test]
fn the_defaults_that_are_shown_are_those_that_count() {
    let shown = show(&Config::default());
    let settings = parse(&shown).expect("what is shown is a config file");
    assert_eq!(settings.load.serve(), LoadSettings::default().serve());
    assert_eq!(settings.load.placement(), LoadSettings::default().placement());
    let defaults = settings.sampling.defaults();
    assert_eq!(defaults.sampling.params(), GenerateDefaults::default().sampling.params());
    assert!(defaults.stop.is_empty());
    assert_eq!(keys::get(&settings.server.bind).as_deref(), Some("auto"));
}

#[test]
fn what_is_shown_says_who_set_it_and_is_a_config_file() {
    let text = "queue = 1\nparallel = 5\n[models.m]\nbase = 'stub'\nparallel = 2\nsampling.system = \"a\\nb\"";
    let shown = show(&config(text, LoadSettings { parallel: option(9), ..LoadSettings::default() }));
    let line = |start: &str| shown.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>().join("\n");
    assert_eq!(line("queue"), "queue = 1                                   # config.toml:1");
    assert_eq!(line("lookup"), "lookup = 0                                  # default");
    let parallel = "parallel = 9                                # --it";
    assert_eq!(line("parallel"), format!("{parallel}\n{parallel}"));
    assert_eq!(line("system"), "system = \"a\\nb\"                             # config.toml:6");
    let again = parse(&shown).expect("what is shown is a config file");
    assert_eq!(keys::get(&again.models["m"].load.parallel), Some(9));
}

/// A value of any key, in TOML.
fn some_value(key: &str) -> BoxedStrategy<String> {
    let text = || {
        ".{1,12}".prop_filter("no NUL in paths", |text: &String| !text.contains('\0')).prop_map(|t| kinds::quoted(&t))
    };
    let word = |all: &'static [&'static str]| proptest::sample::select(all).prop_map(|word| format!("'{word}'"));
    let list = |one: BoxedStrategy<String>| {
        proptest::collection::vec(one, 0..4).prop_map(|all| format!("[{}]", all.join(", "))).boxed()
    };
    let fraction = (0.01_f32..=1.0).prop_map(|x| format!("{x:?}"));
    match key {
        "bind" | "model" | "template" | "system" | "path" | "draft_model" | "mmproj" => text().boxed(),
        "base" => "[a-z]{3}-unknown".prop_map(|name| format!("'{name}'")).boxed(),
        "source" => word(&["hf:owner/name", "ollama:llama3:8b"]).boxed(),
        "alias" => Just("['x/y', 'z:8b']".to_owned()).boxed(),
        "adapters" => {
            let table =
                (text(), -9.0_f32..9.0).prop_map(|(path, scale)| format!("{{ path = {path}, scale = {scale:?} }}"));
            list(prop_oneof![text(), table].boxed())
        }
        "model_dirs" | "device" | "stop" => prop_oneof![text(), list(text().boxed())].boxed(),
        "tensor_split" => list(fraction.boxed()),
        "api_key" | "api_key_file" | "allow_host" | "allow_origin" => text().boxed(),
        "keep_alive" => prop_oneof![word(&["forever", "5m", "0"]), (0..999_u32).prop_map(|n| n.to_string())].boxed(),
        "memory_budget" => word(&["80%", "12GiB", "CUDA0=20GiB,cpu=50%"]).boxed(),
        "log" => word(&["warn", "shimmy=debug,warn"]).boxed(),
        "deterministic" | "insecure" => any::<bool>().prop_map(|on| on.to_string()).boxed(),
        "pull" => word(&["off", "known", "ANY"]).boxed(),
        "cpu_moe" => Just("false".to_owned()).boxed(),
        "cache_type_k" | "cache_type_v" => word(&["f16", "q8_0", "q4_0"]).boxed(),
        "flash_attn" => word(&["auto", "on", "OFF"]).boxed(),
        "gpu_backend" => word(&["auto", "cpu", "cuda", "Vulkan"]).boxed(),
        "split_mode" => word(&["none", "layer"]).boxed(),
        "gpu_layers" => prop_oneof![word(&["all", "auto"]), (0..99_u32).prop_map(|n| n.to_string())].boxed(),
        key if SamplingSettings::KEYS.contains(&key)
            && !["top_k", "repeat_last_n", "seed", "max_tokens"].contains(&key) =>
        {
            fraction.boxed()
        }
        // Whole numbers, within what is allowed to all of them.
        _ => (1..=32_u32).prop_map(|n| n.to_string()).boxed(),
    }
}

fn some_lines(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::subsequence(keys, 0..=keys.len()).prop_flat_map(|keys| {
        let lines: Vec<_> =
            keys.into_iter().map(|key| some_value(key).prop_map(move |value| format!("{key} = {value}\n"))).collect();
        lines.prop_map(|lines| lines.concat())
    })
}

fn some_file() -> impl Strategy<Value = String> {
    let own = proptest::sample::select(&["path", "source", "base"][..])
        .prop_flat_map(|key| some_value(key).prop_map(move |value| format!("{key} = {value}\n")));
    let more = (some_value("alias"), some_value("adapters"));
    let model = (own, more, some_lines(LoadSettings::KEYS), some_lines(SamplingSettings::KEYS));
    let model = model.prop_map(|(own, (alias, adapters), load, sampling)| {
        format!(
            "[models.'m:ä']\n{own}alias = {alias}\nadapters = {adapters}\n{load}[models.'m:ä'.sampling]\n{sampling}"
        )
    });
    let top = (some_lines(ServerSettings::KEYS), some_lines(LoadSettings::KEYS), some_lines(SamplingSettings::KEYS));
    (top, model).prop_map(|((server, load, sampling), model)| format!("{server}{load}[sampling]\n{sampling}{model}"))
}

proptest! {
    #[test]
    fn what_is_printed_says_the_same(text in some_file()) {
        let settings = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        let printed = print(&settings);
        prop_assert_eq!(parse(&printed), Ok(settings), "{}", printed);
    }

    #[test]
    fn no_text_is_too_strange(text in any::<String>(), file in some_file(), at in any::<prop::sample::Index>()) {
        let _ = parse(&text);
        // A good file with something strange in it.
        let at = file.floor_char_boundary(at.index(file.len()));
        let broken = format!("{}{text}{}", &file[..at], &file[at..]);
        if let Err(error) = parse(&broken) {
            prop_assert!(!error.problems().is_empty());
            let lines = broken.split('\n').count();
            prop_assert!(error.problems().iter().all(|problem| (1..=lines).contains(&problem.line)), "{}", error);
        }
    }
}
