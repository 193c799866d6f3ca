"""Settings of the job `plan-tables`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class Cluster:
    """GPUs that need not be there. GB are 2^30 bytes; the defaults are those of a host with eight H100."""

    hosts: int = 1
    """Machines."""
    gpus_per_host: int = 8
    """GPUs of each machine; one process a GPU."""
    hbm_gb: float = 80.0
    """Memory of each GPU."""
    ddr_gb: float = 1024.0
    """Memory of each machine, shared evenly by its processes."""
    reserved_share: float = 0.15
    """Share of each GPU's memory kept free of tables: dense weights, activations, the allocator; 0 <= x < 1."""
    hbm_gb_per_s: float = 3350.0
    """Bandwidth of a GPU's own memory."""
    ddr_gb_per_s: float = 200.0
    """Bandwidth of a machine's memory."""
    host_link_gb_per_s: float = 50.0
    """Between a GPU and its machine's memory (PCIe)."""
    gpu_link_gb_per_s: float = 450.0
    """Between GPUs of one machine (NVLink)."""
    network_gb_per_s: float = 50.0
    """Between machines, for each GPU."""

    def __post_init__(self) -> None:
        for name in ("hosts", "gpus_per_host"):
            if getattr(self, name) < 1:
                raise ConfigError(f"cluster.{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.reserved_share < 1:
            raise ConfigError(f"cluster.reserved_share must be in [0, 1), got {self.reserved_share}")
        names = ("hbm_gb", "ddr_gb", "hbm_gb_per_s", "ddr_gb_per_s")
        for name in (*names, "host_link_gb_per_s", "gpu_link_gb_per_s", "network_gb_per_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"cluster.{name} must be > 0, got {getattr(self, name)}")

    @property
    def gpus(self) -> int:
        return self.hosts * self.gpus_per_host


@dataclass(slots=True, kw_only=True)
class PlanTablesSettings:
    """Say where TorchRec would put embedding tables on a cluster of GPUs, which need not be there.

    Tables are those of a training run's model, or declared by their rows. The plan is made by the planner that training
    itself uses, under the same constraints; the times are its estimates from the bandwidths given. What does not fit is
    refused with the numbers.

        playbill plan-tables run=ml-100k-two_tower                      the tables of a run, on eight H100
        playbill plan-tables rows.item=1000000000 cluster.hosts=2       a table of 10^9 rows, on sixteen
        playbill plan-tables rows.item=500000000 rows.user_city=5000 widths.user_city=16 ids_per_example.item=200
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    run: str | None = None
    """Training run whose tables are planned: <home>/runs/<run>; null = those in `rows`."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows by table name; of a run's table, other rows than it has today."""
    width: int = 64
    """Columns of each declared table that `widths` does not name."""
    widths: dict[str, int] = field(default_factory=dict)
    """Columns by table name."""
    ids_per_example: dict[str, float] = field(default_factory=dict)
    """Ids that an example looks up, by table name; 1 where not named, for a run's item table its history and target."""
    batch_per_gpu: int = 4096
    """Examples of each GPU in a step."""
    host_memory: bool = False
    """Also allow rows in the machines' memory, cached on the GPU (slower; training itself does not use it)."""
    cluster: Cluster = field(default_factory=Cluster)
    """What the tables are to lie on."""
    out: str | None = None
    """File to write the plan to, as json; null prints it only."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.batch_per_gpu < 1:
            raise ConfigError(f"width and batch_per_gpu must be >= 1, got {self.width} and {self.batch_per_gpu}")
        for name in ("rows", "widths", "ids_per_example"):
            for table, value in getattr(self, name).items():
                if not value > 0:
                    raise ConfigError(f"{name}.{table} must be > 0, got {value}")
        if self.run is None:
            for name in ("widths", "ids_per_example"):
                strange = sorted(set(getattr(self, name)) - set(self.rows))
                if strange:
                    raise ConfigError(f"{name} names {strange}, tables are: {', '.join(self.rows)}")
