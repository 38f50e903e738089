//! Names in a pipeline file that must lead somewhere, and values that must make sense.

use sandcast_sandbox::{ControlPoint, Role, TaskKind};

use super::Sections;
use super::diagnostic::Problem;
use super::names::{hint, is_plain};
use super::spans::Spans;
use crate::gate::Gate;

/// Where the line asks for permission.
pub(crate) const ASKED: [ControlPoint; 5] = [
    ControlPoint::PluginLoad,
    ControlPoint::DataRead,
    ControlPoint::TrainStart,
    ControlPoint::Promote,
    ControlPoint::Predict,
];

/// Everything that is wrong with the sections of a file.
pub(super) fn check(sections: &Sections, source: &Spans) -> Vec<Problem> {
    let mut check = Check {
        sections,
        source,
        problems: Vec::new(),
    };
    if sections.version != 1 {
        check.value(
            "version",
            format!("there is no version {}", sections.version),
            "write `version: 1`",
        );
    }
    check.names();
    check.plugins_used();
    check.trust();
    check.conduct();
    check.data();
    check.training();
    check.gate();
    check.problems
}

struct Check<'a> {
    sections: &'a Sections,
    source: &'a Spans,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn value(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem::at(self.source, self.source.value(path), message).with_help(help);
        self.problems.push(problem);
    }

    fn names(&mut self) {
        const HELP: &str =
            "use lower case letters, digits, `-` and `_`, with a letter or a digit first";
        let sections = self.sections;
        let register = &sections.register;
        let mut values = vec![
            ("name", &sections.name),
            ("register.model", &register.model),
        ];
        values.extend(
            register
                .alias
                .as_ref()
                .map(|alias| ("register.alias", alias)),
        );
        for (path, name) in values {
            if !is_plain(name) {
                self.value(path, format!("`{name}` cannot be a name"), HELP);
            }
        }
        if register
            .alias
            .as_ref()
            .is_some_and(|alias| alias.parse::<u64>().is_ok())
        {
            self.value(
                "register.alias",
                "an alias cannot be a number",
                "numbers are versions",
            );
        }
        let keys = (sections.plugins.keys().map(|name| ("plugins", name)))
            .chain(sections.sources.keys().map(|name| ("sources", name)))
            .chain(
                sections
                    .connections
                    .keys()
                    .map(|name| ("connections", name)),
            )
            .chain(sections.stores.keys().map(|name| ("stores", name)));
        for (section, name) in keys {
            if !is_plain(name) {
                let range = self.source.key(&format!("{section}.{name}"));
                let message = format!("`{name}` cannot be a name");
                self.problems
                    .push(Problem::at(self.source, range, message).with_help(HELP));
            }
        }
    }

    fn conduct(&mut self) {
        let (sections, source) = (self.sections, self.source);
        for (key, may_be) in sections.conduct.mistakes() {
            self.value(
                &format!("conduct.{key}"),
                format!("`{key}` makes no sense like this"),
                format!("it may be {may_be}"),
            );
        }
        for name in sections.conduct.plugins.keys() {
            if !sections.plugins.contains_key(name) {
                let help = hint(name, "plugins", sections.plugins.keys().map(String::as_str));
                let range = source.key(&format!("conduct.plugins.{name}"));
                let message = format!("there is no plugin `{name}`");
                self.problems
                    .push(Problem::at(source, range, message).with_help(help));
            }
        }
    }

    /// A plugin that is named somewhere must be there and have the role for it.
    fn plugin(&mut self, path: &str, name: &str, role: Role) {
        match self.sections.plugins.get(name) {
            None => {
                let help = hint(
                    name,
                    "plugins",
                    self.sections.plugins.keys().map(String::as_str),
                );
                self.value(path, format!("there is no plugin `{name}`"), help);
            }
            Some(plugin) if plugin.role != role => {
                let fitting = (self.sections.plugins.iter())
                    .filter(|(_, plugin)| plugin.role == role)
                    .map(|(name, _)| name.as_str());
                let help = hint(name, &format!("plugins with the role `{role}`"), fitting);
                let needed = match role {
                    Role::Adapter => "an adapter".to_owned(),
                    role => format!("a {role}"),
                };
                let message = format!(
                    "{needed} is needed, and the plugin `{name}` has the role {}",
                    plugin.role
                );
                self.value(path, message, help);
            }
            Some(_) => {}
        }
    }

    fn plugins_used(&mut self) {
        let sections = self.sections;
        for (name, section) in &sections.sources {
            self.plugin(
                &format!("sources.{name}.plugin"),
                &section.plugin,
                Role::Connector,
            );
        }
        for (index, section) in sections.validate.iter().enumerate() {
            self.plugin(
                &format!("validate[{index}].plugin"),
                &section.plugin,
                Role::Validator,
            );
        }
        for (index, section) in sections.policies.iter().enumerate() {
            self.plugin(
                &format!("policies[{index}].plugin"),
                &section.plugin,
                Role::Policy,
            );
            if section.at.is_empty() {
                let message = "this policy is never asked";
                self.value(
                    &format!("policies[{index}].at"),
                    message,
                    "name a control point",
                );
            }
            for (place, point) in section.at.iter().enumerate() {
                if !ASKED.contains(point) {
                    let message = format!("nothing is asked at `{}` yet", point.as_str());
                    let help = hint(
                        point.as_str(),
                        "control points",
                        ASKED.map(ControlPoint::as_str),
                    );
                    self.value(&format!("policies[{index}].at[{place}]"), message, help);
                }
            }
            // Asking a policy whether policies may be loaded would need it to be loaded.
            let itself = section.at.contains(&ControlPoint::PluginLoad);
            let others = sections
                .plugins
                .values()
                .any(|plugin| plugin.role != Role::Policy);
            if itself && !others {
                let message = "there is no plugin that this policy could be asked about";
                self.value(
                    &format!("policies[{index}].at"),
                    message,
                    "remove `plugin-load`",
                );
            }
        }
        self.plugin("train.plugin", &sections.train.plugin, Role::Adapter);
    }

    /// A rule that names nobody would refuse everything, or nothing.
    fn trust(&mut self) {
        for (role, rule) in &self.sections.trust {
            for problem in rule.problems(*role) {
                self.value(&problem.path, problem.message, problem.help);
            }
        }
    }

    fn data(&mut self) {
        let sections = self.sections;
        match (sections.sources.len(), &sections.dataset.sql) {
            (0, _) => self.value("sources", "there are no sources", "name at least one"),
            (1, None) => {}
            (many, None) => {
                let message = format!("there are {many} sources and no query over them");
                let help = "say in `dataset.sql` how they become one table, \
                            such as `SELECT * FROM a UNION ALL SELECT * FROM b`";
                let range = self.source.key("sources");
                self.problems
                    .push(Problem::at(self.source, range, message).with_help(help));
            }
            (_, Some(sql)) if sql.trim().is_empty() => {
                self.value(
                    "dataset.sql",
                    "the query is empty",
                    "write a SELECT over the sources",
                );
            }
            (_, Some(_)) => {}
        }
    }

    /// A kind of task has the target it needs, and the positive value that goes with it.
    fn target(&mut self) {
        let train = &self.sections.train;
        let (task, name) = (train.task, train.task.name());
        let mut missing = |key: &str, message: String, help: &str| {
            let range = self.source.key(key);
            self.problems
                .push(Problem::at(self.source, range, message).with_help(help));
        };
        match (task, &train.target, &train.positive) {
            (_, None, _) if task.has_target() => {
                let message = format!("`{name}` needs `train.target`");
                missing(
                    "train.task",
                    message,
                    "write the name of the column to predict",
                );
            }
            (TaskKind::Clustering, Some(_), _) => {
                let message = "a clustering has no target";
                let help = "remove it; a column that is not to be learnt from goes into \
                            `train.features.exclude`";
                self.value("train.target", message, help);
            }
            (TaskKind::TextGeneration, Some(_), _) => {
                let message = "a text generation has no target";
                let help = "remove it; the one feature is the text to learn";
                self.value("train.target", message, help);
            }
            (TaskKind::BinaryClassification, Some(_), None) => {
                let message = "a binary classification needs `train.positive`".to_owned();
                let help = "write the value of the target that counts as positive";
                missing("train.target", message, help);
            }
            (TaskKind::AnomalyDetection, Some(_), None) => {
                let message = "labels to judge by need `train.positive`".to_owned();
                let help = "write the value of the target that marks an anomaly";
                missing("train.target", message, help);
            }
            (TaskKind::AnomalyDetection, None, Some(_)) => {
                let message = "a positive value without `train.target` says nothing";
                let help = "name the column that has it in `train.target`, or remove it";
                self.value("train.positive", message, help);
            }
            (
                TaskKind::MulticlassClassification
                | TaskKind::Regression
                | TaskKind::Clustering
                | TaskKind::TextGeneration,
                _,
                Some(_),
            ) => {
                let message = "only a binary classification has a positive value";
                self.value(
                    "train.positive",
                    message,
                    "remove it, or change `train.task`",
                );
            }
            _ => {}
        }
    }

    fn training(&mut self) {
        let sections = self.sections;
        let train = &sections.train;
        self.target();
        let split = train.split;
        let shares = [("test", split.test), ("validation", split.validation)];
        for (name, share) in shares {
            if !(0.0..=0.9).contains(&share) {
                let message = format!("a share of {share} makes no sense");
                self.value(
                    &format!("train.split.{name}"),
                    message,
                    "give a number from 0 to 0.9",
                );
            }
        }
        if split.test <= 0.0 {
            let message = "without test rows the model cannot be judged";
            self.value("train.split.test", message, "give a share above 0");
        }
        if split.test + split.validation > 0.95 {
            self.value(
                "train.split",
                "hardly a row is left to train on",
                "lower the shares",
            );
        }
        let wrong = |share: &f64| !(*share > 0.0 && *share <= 0.5);
        if let Some(share) = sections.evaluate.share.filter(wrong) {
            let message = format!("a share of {share} makes no sense");
            self.value(
                "evaluate.share",
                message,
                "give a number above 0, at most 0.5",
            );
        }
        if train.task == TaskKind::Clustering && !sections.evaluate.slices.is_empty() {
            let message = "a clustering treats nobody better or worse, so it has no slices";
            self.value("evaluate.slices", message, "remove them");
        }
        if train.task == TaskKind::TextGeneration {
            if !sections.evaluate.slices.is_empty() {
                let message = "a text generation is judged by its texts as a whole";
                self.value("evaluate.slices", message, "remove the slices");
            }
            if train.weight.is_some() {
                let message = "every text of a text generation counts by its length";
                self.value("train.weight", message, "remove the weight");
            }
        }
        if !(0.0..=1.0).contains(&sections.evaluate.threshold) {
            let message = format!("a probability cannot be {}", sections.evaluate.threshold);
            self.value("evaluate.threshold", message, "give a number from 0 to 1");
        }
        let used = train.features.include.iter().flatten().enumerate();
        for (index, feature) in used {
            if Some(feature) == train.target.as_ref() || Some(feature) == train.weight.as_ref() {
                let message = format!("`{feature}` cannot be a feature as well");
                let path = format!("train.features.include[{index}]");
                self.value(&path, message, "a target or a weight is never learnt from");
            }
        }
        self.object("train.hyperparameters", &train.hyperparameters);
        for (name, section) in &sections.sources {
            self.object(&format!("sources.{name}.config"), &section.config);
        }
        for (index, section) in sections.validate.iter().enumerate() {
            self.object(&format!("validate[{index}].config"), &section.config);
        }
        for (index, section) in sections.policies.iter().enumerate() {
            self.object(&format!("policies[{index}].config"), &section.config);
        }
    }

    fn object(&mut self, path: &str, value: &serde_json::Value) {
        if !value.is_object() {
            self.value(
                path,
                "this must be a mapping",
                "write `key: value` pairs, or `{}`",
            );
        }
    }

    fn gate(&mut self) {
        let sections = self.sections;
        if sections.gate.is_empty() {
            let help = "write at least one expression; `[\"true\"]` accepts any model";
            self.value("gate", "a gate without expressions would pass unseen", help);
        }
        for (index, expression) in sections.gate.iter().enumerate() {
            let Err(error) = Gate::check(expression, sections) else {
                continue;
            };
            let whole = self.source.value(&format!("gate[{index}]"));
            let range = within(self.source.text(), whole, expression, error.bytes);
            let mut problem = Problem::at(self.source, range, error.message);
            problem.help = error.help;
            self.problems.push(problem);
        }
    }
}

/// Where bytes of an expression stand in the file: exact if the file has it letter by letter.
fn within(
    text: &str,
    whole: std::ops::Range<usize>,
    expression: &str,
    bytes: std::ops::Range<usize>,
) -> std::ops::Range<usize> {
    match text
        .get(whole.clone())
        .and_then(|written| written.find(expression))
    {
        Some(offset) => whole.start + offset + bytes.start..whole.start + offset + bytes.end,
        None => whole,
    }
}
