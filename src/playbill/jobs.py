"""The jobs of the command line: what each is called, what it runs, and whose fields it takes.

Names alone: no module of a job is imported before it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """One verb of the command line.

    Attributes:
        about: one line for `playbill --help`.
        run: `module:function`, called with the settings.
        settings: `module:class` of the job's settings dataclass.
        groups: `group/schema name` -> `module:class` for every choice the job's configuration offers.
        folder: the field that names the folder it writes, where there is one: `-m` gives every run a name of its own.
        first: the field that a first word without a `=` stands for.
        preset: the group whose choice, as it stands in conf/, the settings hold as `preset` beside what was made of it.
    """

    about: str
    run: str
    settings: str
    groups: dict[str, str]
    folder: str = ""
    first: str = ""
    preset: str = ""


_SOURCES = {
    "source/movielens_schema": "playbill.sources.settings:MovieLens",
    "source/parquet_schema": "playbill.sources.settings:ParquetFiles",
}
_MODELS = {
    "model/two_tower_schema": "playbill.training.settings:TwoTower",
    "model/preset_schema": "playbill.training.settings:Preset",
    "model/ranker_schema": "playbill.training.ranking_settings:Ranker",
    "model/creative_schema": "playbill.training.creative_settings:Creative",
    "model/response_schema": "playbill.training.response_settings:Response",
}

_WORLDS = {
    "world/parameters_schema": "playbill.world.parameters:Parameters",
    "size/size_schema": "playbill.world.settings:Size",
}
_QUESTIONS = {
    "question/ranking_schema": "playbill.measure.lists.settings:RankingQuestion",
    "question/off_policy_schema": "playbill.measure.off_policy.settings:OffPolicyQuestion",
    "question/experiment_schema": "playbill.measure.experiments.settings:ExperimentQuestion",
    "question/power_schema": "playbill.measure.power.settings:PowerQuestion",
    "question/interleaving_schema": "playbill.measure.interleaving.settings:InterleavingQuestion",
    "question/uplift_schema": "playbill.measure.uplift.settings:UpliftQuestion",
    "question/disparity_schema": "playbill.measure.disparity.settings:DisparityQuestion",
    "question/drift_schema": "playbill.measure.drift.settings:DriftQuestion",
    "question/feedback_schema": "playbill.measure.feedback.settings:FeedbackQuestion",
}

JOBS: dict[str, Job] = {
    "doctor": Job(
        "check this machine and installation, say what to do",
        "playbill.doctor:run",
        "playbill.doctor:DoctorSettings",
        {
            "estimate/two_tower_schema": "playbill.training.planning.estimate_settings:EstimateTowers",
            "estimate/ranker_schema": "playbill.training.planning.estimate_settings:EstimateRanker",
        },
    ),
    "prepare": Job(
        "fetch a source, validate it, write the five tables",
        "playbill.sources.prepare:run",
        "playbill.sources.settings:PrepareSettings",
        _SOURCES,
    ),
    "embed": Job(
        "turn texts of items into a vector column, by a sentence model that runs here",
        "playbill.training.embed:run",
        "playbill.training.texts.settings:EmbedSettings",
        {},
    ),
    "train": Job(
        "train model=two_tower, model=ranker or model=creative",
        "playbill.training.train:run",
        "playbill.training.settings:TrainSettings",
        _MODELS,
        folder="run",
    ),
    "train-lists": Job(
        "learn to put shown lists in order, from numbers of their items and what was taken",
        "playbill.training.lists.job:run",
        "playbill.training.lists.settings:ListSettings",
        {},
    ),
    "train-campaign": Job(
        "learn when each person reads their mails",
        "playbill.training.campaign.job:run",
        "playbill.training.campaign.settings:CampaignModelSettings",
        {},
    ),
    "train-offers": Job(
        "learn what each offer does to each person, from offers drawn at random",
        "playbill.training.campaign.offers:run",
        "playbill.training.campaign.offer_settings:OfferModelSettings",
        {},
    ),
    "train-acts": Job(
        "learn how likely people are to stay away, come back and buy, when, and for how much",
        "playbill.training.campaign.acts_job:run",
        "playbill.training.campaign.acts_settings:ActSettings",
        {},
    ),
    "campaign-audience": Job(
        "list whom a trigger writes to: people who would stay away, baskets left behind",
        "playbill.campaign.audience_job:run",
        "playbill.campaign.audience_settings:AudienceSettings",
        {},
    ),
    "sweep": Job(
        "train many times over a space of settings and keep the best",
        "playbill.training.sweep:run",
        "playbill.training.sweeping.settings:SweepSettings",
        {},
        folder="name",
    ),
    "tune": Job(
        "pick the baselines' numbers on validation and fit them for a bundle",
        "playbill.release.tune:run",
        "playbill.release.tune_settings:TuneSettings",
        {},
        folder="run",
    ),
    "plan-tables": Job(
        "say where TorchRec would put embedding tables on GPUs that need not be there",
        "playbill.training.plan_tables:run",
        "playbill.training.planning.settings:PlanTablesSettings",
        {},
    ),
    "export": Job(
        "write trained models, index and baselines into a staged bundle",
        "playbill.training.export:run",
        "playbill.training.settings:ExportSettings",
        {},
    ),
    "blend": Job(
        "make one order out of several retrievers, fitted on people that none has seen",
        "playbill.release.blending:run",
        "playbill.release.blend_settings:BlendSettings",
        {},
    ),
    "track": Job(
        "hand bundles and what was measured of them over to Weights & Biases",
        "playbill.training.track:run",
        "playbill.training.dashboards.settings:TrackSettings",
        {},
    ),
    "dashboard": Job(
        "show runs, sweeps and bundles on one page, and as a workspace where there is a key",
        "playbill.training.dashboard:run",
        "playbill.training.dashboards.settings:DashboardSettings",
        {},
    ),
    "evaluate": Job(
        "measure a bundle on held-out time beside baselines",
        "playbill.release.evaluate:run",
        "playbill.release.settings:EvaluateSettings",
        {},
    ),
    "gate": Job(
        "hold a bundle against the release rules and seal it",
        "playbill.release.gate:run",
        "playbill.release.gate_settings:GateSettings",
        {"gate/rules_schema": "playbill.release.gate_settings:Rules"},
        first="bundle",
        preset="gate",
    ),
    "publish": Job(
        "make a sealed bundle the current one",
        "playbill.release.publish:run",
        "playbill.release.settings:PublishSettings",
        {},
    ),
    "ingest": Job(
        "fold the tables' events into the state store",
        "playbill.state.ingest:run",
        "playbill.state.settings:IngestSettings",
        {},
    ),
    "unload": Job(
        "write the store's log of events and choices as tables",
        "playbill.state.unload:run",
        "playbill.state.settings:UnloadSettings",
        {},
    ),
    "batch": Job(
        "score an audience to parquet with Ray Data",
        "playbill.serving.batch:run",
        "playbill.serving.settings:BatchSettings",
        {},
        folder="name",
    ),
    "serve": Job(
        "answer requests over HTTP with Ray Serve",
        "playbill.serving.serve:run",
        "playbill.serving.settings:ServeSettings",
        {},
    ),
    "slates": Job(
        "list the log of answered slates, export it as decisions, erase a person from it",
        "playbill.serving.slatelog.job:run",
        "playbill.serving.slatelog.settings:SlatesSettings",
        {},
        first="action",
    ),
    "campaign-copy": Job(
        "propose, approve and reject the subjects and heroes of a campaign, held against the brand's rules",
        "playbill.campaign.copy_job:run",
        "playbill.campaign.copy_settings:CampaignCopySettings",
        {},
        first="file",
    ),
    "campaign-run": Job(
        "decide for each recipient of a campaign whether, what, when and with which subject",
        "playbill.serving.campaigns.run:run",
        "playbill.serving.campaigns.settings:CampaignRunSettings",
        {"campaign/declaration_schema": "playbill.campaign.settings:Campaign"},
    ),
    "campaign-subjects": Job(
        "learn between the waves of a campaign which subject is opened by whom, and which hero clicked",
        "playbill.serving.campaigns.subjects:run",
        "playbill.serving.campaigns.subjects:CampaignSubjectsSettings",
        {},
        first="name",
    ),
    "campaign-plan": Job(
        "say whom a campaign would reach and what it could show, before it is sent",
        "playbill.serving.campaigns.plan:run",
        "playbill.serving.campaigns.plan:CampaignPlanSettings",
        {"campaign/declaration_schema": "playbill.campaign.settings:Campaign"},
    ),
    "campaign-report": Job(
        "say what a campaign did, against who was held out of it",
        "playbill.measure.campaigns.report:run",
        "playbill.measure.campaigns.settings:CampaignReportSettings",
        {},
        first="name",
    ),
    "replay": Job(
        "answer again what the slate log says was answered, and say what is equal",
        "playbill.serving.slatelog.replay:run",
        "playbill.serving.slatelog.settings:ReplaySettings",
        {},
        first="file",
    ),
    "keys": Job(
        "make, list and revoke the API keys of a server",
        "playbill.serving.keys_job:run",
        "playbill.serving.settings:KeysSettings",
        {},
        first="action",
    ),
    "ask": Job(
        "ask a running server for one person's slate and print it", "playbill.ask:run", "playbill.ask:AskSettings", {}
    ),
    "load": Job(
        "send requests to a running server at given rates and say how long they took",
        "playbill.serving.loading.job:run",
        "playbill.serving.loading.settings:LoadSettings",
        {},
        folder="name",
    ),
    "items": Job(
        "tell a running server of items in a file: new, changed, withdrawn",
        "playbill.feed:run",
        "playbill.feed:FeedSettings",
        {},
        first="file",
    ),
    "reproduce": Job(
        "rerun a published protocol by name, rivals beside ours",
        "playbill.release.reproducing:run",
        "playbill.release.settings:ReproduceSettings",
        {},
        first="name",
    ),
    "generate": Job(
        "write a simulated service whose truth is known, as the five tables",
        "playbill.world.generate:run",
        "playbill.world.settings:GenerateSettings",
        _WORLDS,
        folder="name",
    ),
    "fit": Job(
        "fit the simulated service to real logs, with a report of plots and distances",
        "playbill.world.fitting.fit:run",
        "playbill.world.fitting.settings:FitSettings",
        {},
    ),
    "rehearse": Job(
        "let policies serve the simulated people round after round, beside the oracle",
        "playbill.rehearsal.rehearse:run",
        "playbill.rehearsal.settings:RehearseSettings",
        _WORLDS,
        folder="name",
    ),
    "measure": Job(
        "read a log and say what is true: experiments, off-policy values, uplift, disparity, drift",
        "playbill.measure.job:run",
        "playbill.measure.settings:MeasureSettings",
        _QUESTIONS,
    ),
    "demo": Job("walk the whole road on MovieLens-100K", "playbill.demo:run", "playbill.demo:DemoSettings", {}),
}
