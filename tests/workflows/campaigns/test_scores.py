"""The tables of a campaign, whole, from known means."""

from workflows.campaigns.scores import Mean, answering_workers, mean_csv, mean_rows
from workflows.campaigns.tracked import metrics_of_means

ROWS = [
    Mean("cb", (("lr", "1e-05"),), "accuracy", 70.25, 1.5, (1, 2, 3), 60.0, 80.5, 56, 50.0, 61.125, "nothing"),
    Mean("cb", (("lr", "1e-05"),), "macro_f1", 55.0, 2.25, (1, 2, 3), None, None, 56, 21.5, None, "nothing"),
    Mean("sst2", (("lr", "2e-05"),), "accuracy", 81.0, None, (1,), 78.0, 84.0, 872, 50.5, 79.0, ""),
]


def test_the_table_has_a_row_for_each_task_setting_and_metric():
    columns, rows = mean_rows(ROWS)
    assert columns == [
        *("task", "lr", "metric", "mean", "sd over seeds", "seeds", "95 % interval over items", "n"),
        *("majority", "bag of words", "selected by"),
    ]
    assert rows == [
        ["cb", "1e-05", "accuracy", "70.2", "1.5", 3, "60.0 to 80.5", 56, "50.0", "61.1", "nothing"],
        ["cb", "1e-05", "macro_f1", "55.0", "2.2", 3, "-", 56, "21.5", "-", "nothing"],
        ["sst2", "2e-05", "accuracy", "81.0", "-", 1, "78.0 to 84.0", 872, "50.5", "79.0", "-"],
    ]
    assert mean_rows([])[1] == []


def test_the_csv_has_full_precision_and_empty_fields_for_what_is_not_known():
    assert mean_csv(ROWS) == (
        "task,lr,metric,mean,sd,seeds,low,high,n,majority,bag_of_words,selected_by\n"
        "cb,1e-05,accuracy,70.25,1.5,3,60.0,80.5,56,50.0,61.125,nothing\n"
        "cb,1e-05,macro_f1,55.0,2.25,3,,,56,21.5,,nothing\n"
        "sst2,2e-05,accuracy,81.0,,1,78.0,84.0,872,50.5,79.0,\n"
    )


def test_mlflow_gets_the_means_by_task_setting_and_metric():
    cb = "eval/cb/lr_1e-05"
    assert metrics_of_means(ROWS) == {
        f"{cb}/accuracy": 70.25,
        f"{cb}/accuracy_sd": 1.5,
        f"{cb}/accuracy_seeds": 3.0,
        f"{cb}/accuracy_n": 56.0,
        f"{cb}/accuracy_low": 60.0,
        f"{cb}/accuracy_high": 80.5,
        f"{cb}/macro_f1": 55.0,
        f"{cb}/macro_f1_sd": 2.25,
        f"{cb}/macro_f1_seeds": 3.0,
        f"{cb}/macro_f1_n": 56.0,
        "eval/sst2/lr_2e-05/accuracy": 81.0,
        "eval/sst2/lr_2e-05/accuracy_seeds": 1.0,
        "eval/sst2/lr_2e-05/accuracy_n": 872.0,
        "eval/sst2/lr_2e-05/accuracy_low": 78.0,
        "eval/sst2/lr_2e-05/accuracy_high": 84.0,
    }
    plain = Mean("cb", (), "f1", 1.0, None, (1,), None, None, 2, None, None, "")
    assert metrics_of_means([plain]) == {"eval/cb/f1": 1.0, "eval/cb/f1_seeds": 1.0, "eval/cb/f1_n": 2.0}


def test_a_gpu_answers_where_one_can_be_reached_and_else_the_cpu():
    assert answering_workers(8, 8) == answering_workers(8, 0) == (8, True)
    assert answering_workers(1, 1) == (1, True)
    assert answering_workers(1, 0) == answering_workers(0, 0) == (1, False)
