use super::*;

fn parsed(text: &str) -> Result<Recipe> {
    from_toml(text, Path::new("test.toml"))
}

#[test]
fn lists_are_swept_scales_go_over_and_equal_runs_are_made_once() {
    let recipe = parsed(
        r#"
        title = "t"
        [train]
        dataset = "synthetic"
        width = 4
        [[runs]]
        method = ["fgsm", "sora"]
        seed = [0, 1]
        [[runs]]
        label = "no noise"
        method = "sora"
        options = { eta = false }
        seed = [0]
        [[runs]]
        method = "fgsm"
        seed = [0]
        [scale.smoke]
        train = { epochs = 1, width = 2 }
        keep = { seed = [0] }
        [scale.full]
        attacks = ["clean"]
        "#,
    )
    .unwrap();
    let full = recipe.plan(Some(Scale::Full), &Table::new()).unwrap();
    let labels =
        |plan: &RecipePlan| plan.runs.iter().map(|run| run.label.clone()).collect::<Vec<_>>();
    assert_eq!(
        labels(&full),
        ["fgsm, seed 0", "fgsm, seed 1", "sora, seed 0", "sora, seed 1", "no noise, seed 0"]
    );
    let smoke = recipe.plan(Some(Scale::Smoke), &Table::new()).unwrap();
    assert_eq!(labels(&smoke), ["fgsm, seed 0", "sora, seed 0", "no noise, seed 0"]);
    assert!(
        smoke.runs[0].config.contains("width = 2") && smoke.runs[0].config.contains("epochs = 1"),
        "{}",
        smoke.runs[0].config
    );
    assert!(
        smoke.runs.iter().all(|run| full.runs.iter().all(|other| other.name != run.name)),
        "other settings, another folder"
    );
    let over = toml::from_str("threads = 3").unwrap();
    assert!(recipe.plan(Some(Scale::Smoke), &over).unwrap().runs[0].config.contains("threads = 3"));
    // Another machine goes on with the same runs.
    let over = toml::from_str("threads = 3\ndata_dir = '/data'\ndevice = 'cpu'").unwrap();
    let there = recipe.plan(Some(Scale::Smoke), &over).unwrap();
    let names =
        |plan: &RecipePlan| plan.runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&there), names(&smoke));
    let other = toml::from_str("dataset = 'mnist'").unwrap();
    assert_ne!(names(&recipe.plan(Some(Scale::Smoke), &other).unwrap()), names(&smoke));
    // A folder with the name of earlier versions is found.
    let out = tempfile::tempdir().unwrap();
    let run = &there.runs[0];
    assert_ne!(run.former_name, run.name);
    assert_eq!(run.folder(out.path()), out.path().join(&run.name));
    std::fs::create_dir(out.path().join(&run.former_name)).unwrap();
    assert_eq!(run.folder(out.path()), out.path().join(&run.former_name));
    let text = recipe.plan(Some(Scale::Small), &Table::new()).unwrap_err().to_string();
    assert!(text.contains("smoke, full"), "{text}");
    let wrong = parsed("title = \"t\"\n[[runs]]\nmethod = \"magic\"\n[scale.smoke]").unwrap();
    let text = wrong.plan(Some(Scale::Smoke), &Table::new()).unwrap_err().to_string();
    assert!(text.contains("magic"), "{text}");
    let text = Recipe::find("curvs").unwrap_err().to_string();
    assert!(text.contains("curves"), "{text}");
    assert!(matches!(Recipe::find("no-such.toml"), Err(Error::Read { .. })));
    assert!(matches!(parsed("title = 3"), Err(Error::Damaged { .. })));
}

#[test]
fn lists_that_combine_to_too_many_runs_are_refused_at_once() {
    let list = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "title = 't'\n[[runs]]\nseed = [{list}]\nepochs = [{list}]\nbatch = [{list}]\nkeep = \
         [{list}]\n[scale.smoke]\n"
    );
    let recipe = parsed(&text).unwrap();
    let started = std::time::Instant::now();
    let text = recipe.plan(Some(Scale::Smoke), &Table::new()).unwrap_err().to_string();
    assert!(text.contains("more than 10000 runs"), "{text}");
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn every_recipe_can_be_run_at_every_scale() {
    // Names of networks are checked when a run begins, so one network stands for all here.
    let one_network = toml::from_str("model = 'preact-resnet18'").unwrap();
    for (name, _) in RECIPES {
        let recipe = Recipe::find(name).unwrap();
        let plans = [Scale::Smoke, Scale::Small, Scale::Full].map(|scale| {
            recipe.plan(Some(scale), &one_network).unwrap_or_else(|e| panic!("{name}: {e}"))
        });
        assert!(plans.iter().all(|plan| !plan.runs.is_empty()), "{name}");
        assert!(!recipe.plots.is_empty() || recipe.table, "{name} draws something");
        assert!(
            !recipe.table || plans.iter().all(|plan| !plan.attacks.is_empty()),
            "{name}: a table of evaluations"
        );
    }
}

#[test]
fn a_wrong_setting_is_told_with_the_file_that_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.toml");
    std::fs::write(&path, "[[runs]]\ndataset = 'synthetic'\nepsilon = 'eight'").unwrap();
    let grid = Recipe::find(path.to_str().unwrap()).unwrap();
    let told = |over: &str| grid.plan(None, &over.parse().unwrap()).unwrap_err();
    assert!(matches!(told(""), Error::InFile { .. }) && told("").to_string().contains("g.toml"));
    assert!(matches!(told("epsilon = 'nine'"), Error::Setting { .. }));
}
