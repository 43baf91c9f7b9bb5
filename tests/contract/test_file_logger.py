"""verl's file logger, whose file ``verl_air.training.run_folder`` keeps whole."""

from __future__ import annotations

from tests.contract.expect import calls_in, function_in, holds, source_of, text_of

USED_BY = "verl_air/training/metrics_file.py"


def test_the_logger_opens_its_file_anew_and_writes_unbuffered() -> None:
    text = text_of("verl.utils.tracking", "FileLogger.__init__")
    holds("os.getenv('VERL_FILE_LOGGER_PATH', None)" in text, "FileLogger reads VERL_FILE_LOGGER_PATH", used_by=USED_BY)
    holds(
        "self.fp = open(self.filepath, 'wb', buffering=0)" in text,
        "FileLogger holds an unbuffered file as fp, truncated when it is opened",
        used_by=USED_BY,
    )


def test_fit_opens_the_logger_then_begins_training() -> None:
    calls = calls_in(function_in(source_of("verl.trainer.ppo.v1.trainer_base"), "PPOTrainer.fit"))
    holds(
        "Tracking" in calls and calls.index("Tracking") < calls.index("self.on_train_begin"),
        "PPOTrainer.fit makes its Tracking before it calls on_train_begin",
        used_by="verl_air/training/trainer.py fit, on_train_begin",
    )
    holds("self.logger['file'] = FileLogger" in text_of("verl.utils.tracking", "Tracking.__init__"),
          "Tracking keeps the file logger as logger['file']", used_by=USED_BY)  # fmt: skip
