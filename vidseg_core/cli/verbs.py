"""The verbs of ``vidseg``: one table that the command line, the help and the messages read.

Invariant: nothing is imported before a verb is used, so that help and usage errors are quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["VERBS", "Verb"]

GOES_ON = "what is finished stays; the same command goes on from there"
COMMITTED = "what is committed stays; the same command goes on from here"
NOTHING_KEPT = "nothing of it is kept; the same command begins again"
NOTHING_CHANGED = "nothing was changed; the same command begins again"
SEGMENT = "vidseg segment --input VIDEO --output masks --segmenter"
WITH_POLICY = f"{SEGMENT} tiny-face --scheduler.policy"
LOOK = "vidseg report --input {output} --output page"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What a verb is and where its parts are, as ``module:name`` inside this package."""

    summary: str
    config: str
    """the dataclass of its options, below `config`"""
    run: str
    """its function from the configuration to the exit code"""
    next: str
    """the command to type after one that went well; ``{output}`` is its option (see `cli.next_command`)"""
    afterwards: str = GOES_ON
    """what an interruption leaves, and how to go on (unless a job raises `KeyboardInterrupt(text)`)"""
    takes_command: bool = False
    """what follows ``--`` is another command, and the second argument of `run`"""
    imports_torch: bool = False
    """its function does when it is imported, which takes seconds and is said"""
    checks_places: bool = True
    """folders are checked before it runs"""
    in_child: str | None = None
    """whether a command so configured works in a child (`pipeline.supervisor`), the last argument of `run`"""

    def config_class(self) -> type[Any]:
        """The dataclass of its options, imported."""
        return _load(f"config.{self.config}")

    def function(self) -> Callable[..., int]:
        """What it runs, imported."""
        return _load(self.run)

    def works_in_child(self, config: Any) -> bool:
        """Whether the work is done in a child that another replaces."""
        return self.in_child is not None and _load(self.in_child)(config)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"vidseg_core.{module}"), name)


VERBS = {
    "segment": Verb(
        summary="videos in, a table of masks out",
        config="segment:SegmentConfig",
        run="cli.segmenting:run_segment",
        next="vidseg export --run {output} --output overlay --format overlay",
        afterwards=COMMITTED,
        in_child="pipeline.executors:may_be_local",
    ),
    "pseudo-label": Verb(
        summary="a teacher net labels videos for a student to learn from",
        config="pseudo_label:PseudoLabelConfig",
        run="cli.segmenting:run_pseudo_label",
        next="vidseg train-segmenter --pseudo {output} --output student",
        afterwards=COMMITTED,
        in_child="pipeline.executors:may_be_local",
    ),
    "train-segmenter": Verb(
        summary="labelled and pseudo-labelled frames in, a net's weights out",
        config="train_segmenter:TrainSegmenterConfig",
        run="training.segmenter_job:run_train_segmenter",
        next=SEGMENT + " {segmenter} --weights {output}/best.safetensors",
        imports_torch=True,
    ),
    "train-flow": Verb(
        summary="clips in, a flow net's weights out",
        config="train_flow:TrainFlowConfig",
        run="training.flow_job:run_train_flow",
        next=f"{SEGMENT} tiny-face --propagation.flow"
        " {net} --propagation.flow_weights {output}/last.safetensors",
        imports_torch=True,
    ),
    "train-propagation": Verb(
        summary="clips and a net in, what carries its features out",
        config="train_propagation:TrainPropagationConfig",
        run="training.propagation_job:run_train_propagation",
        next=SEGMENT
        + " {segmenter} --propagation.name lvs --propagation.level features --propagation.sides one"
        " --propagation.weights {output}/lvs.safetensors",
        imports_torch=True,
    ),
    "build-episodes": Verb(
        summary="clips in, tables out that schedulers learn from",
        config="build_episodes:BuildEpisodesConfig",
        run="episodes.episodes_job:run_build_episodes",
        next="vidseg train-policy --tables {output} --output policy",
        imports_torch=True,
    ),
    "train-policy": Verb(
        summary="episode tables in, a learned key frame policy out",
        config="train_policy:TrainPolicyConfig",
        run="training.policy_job:run_train_policy",
        next=WITH_POLICY + " {output}/policy.safetensors --scheduler.name policy",
        imports_torch=True,
    ),
    "train-decision": Verb(
        summary="episode tables in, DVSNet's decision net out",
        config="train_decision:TrainDecisionConfig",
        run="training.decision_job:run_train_decision",
        next=WITH_POLICY + " {output}/decision.safetensors --scheduler.name confidence_sum",
        imports_torch=True,
        afterwards=NOTHING_KEPT,
    ),
    "train-planner": Verb(
        summary="episode tables in, a scheduler that looks ahead out",
        config="train_planner:TrainPlannerConfig",
        run="training.planner_job:run_train_planner",
        next=WITH_POLICY + " {output}/planner.safetensors --scheduler.name planner",
        imports_torch=True,
        afterwards=NOTHING_KEPT,
    ),
    "tune": Verb(
        summary="search spaces in, a Pareto front of schedulers out",
        config="tune:TuneConfig",
        run="search.tune_job:run_tune",
        next=LOOK,
        imports_torch=True,
        afterwards="what was tried stays; the same command goes on from there",
    ),
    "evaluate": Verb(
        summary="schedulers and propagators over labelled clips, measured",
        config="evaluate:EvaluateConfig",
        run="evaluation.evaluate_job:run_evaluate",
        next=LOOK,
        imports_torch=True,
    ),
    "report": Verb(
        summary="one page with curves, timelines, masks and tables of what was run",
        config="report:ReportConfig",
        run="report.report_job:run_report",
        next="python -m webbrowser {output}/index.html",
        imports_torch=True,
        afterwards=NOTHING_CHANGED,
    ),
    "inspect": Verb(
        summary="look into a run: frames, why a frame was key, sheets, clips, exports",
        config="inspect:InspectConfig",
        run="inspection.inspect_job:run_inspect",
        next="vidseg export --run {run} --output overlay --format overlay",
        imports_torch=True,
        afterwards="pictures that are finished stay; the same command begins again",
    ),
    "submit": Verb(
        summary="any of these as a job of a Ray cluster",
        config="submit:SubmitConfig",
        run="cli.submit:run_submit",
        next="vidseg status --run {output}",
        afterwards="a job that was submitted goes on; the same command follows it, --stop ends it",
        takes_command=True,
    ),
    "status": Verb(
        summary="where a run stands, from its output alone",
        config="verbs:StatusConfig",
        run="cli.finished_runs:run_status",
        next="vidseg inspect --run {run}",
        afterwards=NOTHING_CHANGED,
    ),
    "compact": Verb(
        summary="merge the small part files of a run",
        config="verbs:CompactConfig",
        run="cli.finished_runs:run_compact",
        next="vidseg status --run {run} --verify",
        afterwards="what is merged stays; the same command merges the rest",
    ),
    "export": Verb(
        summary="masks for other tools (COCO, YOLO, DAVIS, CVAT, ...) and as overlay videos",
        config="export:ExportConfig",
        run="cli.finished_runs:run_export",
        next="vidseg report --input {run} --output page",
        afterwards="files that are finished stay; the same command with --overwrite writes all of them again",
    ),
    "demo": Verb(
        summary="generated scenes, several schedulers, one comparison",
        config="verbs:DemoConfig",
        run="demo.demo:run_demo",
        next=f"{SEGMENT} tiny-face",
        imports_torch=True,
    ),
    "doctor": Verb(
        summary="is this machine ready, and what is missing",
        config="verbs:DoctorConfig",
        run="doctor:run_doctor",
        next="vidseg demo",
        afterwards=NOTHING_CHANGED,
        checks_places=False,
    ),
}
