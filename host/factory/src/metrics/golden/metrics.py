"""Writes metrics.json: rows, and what scikit-learn and Fairlearn say about them.

Made once with scikit-learn 1.9.1, fairlearn 0.15.0 and numpy 2.4.6:
    pip install scikit-learn fairlearn && python metrics.py > metrics.json
Probabilities are rounded so that there are ties, and so that the file holds them exactly.
"""

import json

import numpy as np
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
    equalized_odds_ratio,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn import metrics as m
from sklearn.calibration import calibration_curve

generator = np.random.default_rng(20)


def binary():
    rows = 160
    group = generator.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2])
    positive = generator.random(rows) < np.where(group == "a", 0.5, 0.3)
    noise = generator.normal(0, 1, rows)
    score = 1 / (1 + np.exp(-(1.4 * (positive - 0.5) + 0.5 * (group == "a") + noise)))
    score = np.round(score, 2)
    weight = np.round(generator.uniform(0.2, 3, rows), 2)
    threshold = 0.5
    selected = score >= threshold
    bins = 10
    observed, predicted = calibration_curve(positive, score, n_bins=bins, strategy="uniform")
    edges = np.linspace(0, 1, bins + 1)
    which = np.searchsorted(edges[1:-1], score)
    counts = np.bincount(which, minlength=bins)
    error = np.sum(counts[counts > 0] * np.abs(observed - predicted)) / rows
    fpr, tpr, _ = m.roc_curve(positive, score, drop_intermediate=False)
    fair = dict(y_true=positive, y_pred=selected, sensitive_features=group)
    frame = MetricFrame(
        metrics={
            "rows": lambda t, p: len(t),
            "selection_rate": selection_rate,
            "true_positive_rate": true_positive_rate,
            "false_positive_rate": false_positive_rate,
            "accuracy": m.accuracy_score,
        },
        **fair,
    )
    return {
        "positive": positive.tolist(),
        "probability": score.tolist(),
        "weight": weight.tolist(),
        "group": group.tolist(),
        "expected": {
            "auc": m.roc_auc_score(positive, score),
            "pr_auc": m.average_precision_score(positive, score),
            "accuracy": m.accuracy_score(positive, selected),
            "balanced_accuracy": m.balanced_accuracy_score(positive, selected),
            "precision": m.precision_score(positive, selected),
            "recall": m.recall_score(positive, selected),
            "f1": m.f1_score(positive, selected),
            "log_loss": m.log_loss(positive, score),
            "brier": m.brier_score_loss(positive, score),
            "ece": error,
            "selection_rate": selection_rate(positive, selected),
            "base_rate": float(np.mean(positive)),
        },
        "weighted_auc": m.roc_auc_score(positive, score, sample_weight=weight),
        "certain_log_loss": m.log_loss([0, 1, 1], [0.0, 1.0, 0.0]),
        "confusion": m.confusion_matrix(positive, selected).tolist(),
        "roc": [fpr.tolist(), tpr.tolist()],
        "bin_rows": counts.tolist(),
        "bin_observed": observed.tolist(),
        "bin_predicted": predicted.tolist(),
        "groups": frame.by_group.to_dict(orient="index"),
        "slice": {
            "demographic_parity_difference": demographic_parity_difference(**fair),
            "demographic_parity_ratio": demographic_parity_ratio(**fair),
            "equalized_odds_difference": equalized_odds_difference(**fair),
            "equalized_odds_ratio": equalized_odds_ratio(**fair),
            "equal_opportunity_difference": equal_opportunity_difference(**fair),
        },
    }


def multiclass():
    rows, classes = 90, 3
    truth = generator.integers(0, classes, rows)
    logits = generator.normal(0, 1, (rows, classes))
    logits[np.arange(rows), truth] += 1
    probability = np.exp(logits)
    probability /= probability.sum(axis=1, keepdims=True)
    probability = np.round(probability, 3)
    probability[:, 2] = np.round(1 - probability[:, 0] - probability[:, 1], 3)
    predicted = probability.argmax(axis=1)
    averaged = dict(average="macro", zero_division=0)
    return {
        "truth": truth.tolist(),
        "probability": probability.reshape(-1).tolist(),
        "expected": {
            "auc": m.roc_auc_score(truth, probability, multi_class="ovr", average="macro"),
            "accuracy": m.accuracy_score(truth, predicted),
            "balanced_accuracy": m.balanced_accuracy_score(truth, predicted),
            "precision": m.precision_score(truth, predicted, **averaged),
            "recall": m.recall_score(truth, predicted, **averaged),
            "f1": m.f1_score(truth, predicted, **averaged),
            "log_loss": m.log_loss(truth, probability),
            "brier": float(np.mean(np.sum((probability - np.eye(classes)[truth]) ** 2, axis=1))),
        },
        "confusion": m.confusion_matrix(truth, predicted).tolist(),
    }


def regression():
    truth = np.round(generator.normal(50, 20, 40), 2)
    prediction = np.round(truth * 0.8 + generator.normal(8, 6, 40), 2)
    return {
        "truth": truth.tolist(),
        "prediction": prediction.tolist(),
        "expected": {
            "mae": m.mean_absolute_error(truth, prediction),
            "rmse": m.root_mean_squared_error(truth, prediction),
            "r2": m.r2_score(truth, prediction),
        },
    }


def plain(value):
    return value.item() if isinstance(value, np.generic) else str(value)


print(json.dumps({"binary": binary(), "multiclass": multiclass(), "regression": regression()}, default=plain))
