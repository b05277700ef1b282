from .datamodule import FeatureDataModule as FeatureDataModule
from .extraction import ExtractionDataModule as ExtractionDataModule
from .extraction import FeatureExtractionTask as FeatureExtractionTask
from .shards import ExtractionPlan as ExtractionPlan
from .store import FeatureStore as FeatureStore
from .store import new_store as new_store
from .writer import FeatureWriter as FeatureWriter
