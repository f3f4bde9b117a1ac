"""What the SSAE is compared with: text filters, a token mask, linear erasers, group methods; each usable alone."""

from debias_ssae.baselines.erasers import INLP as INLP
from debias_ssae.baselines.erasers import LEACE as LEACE
from debias_ssae.baselines.erasers import SPLINCE as SPLINCE
from debias_ssae.baselines.erasers import CorrelationRemoval as CorrelationRemoval
from debias_ssae.baselines.erasers import CounterfactualSubspace as CounterfactualSubspace
from debias_ssae.baselines.erasers import LinearErasure as LinearErasure
from debias_ssae.baselines.erasers import MeanDifference as MeanDifference
from debias_ssae.baselines.heads import GroupDRO as GroupDRO
from debias_ssae.baselines.heads import GroupReweighting as GroupReweighting
from debias_ssae.baselines.heads import GroupSubsampling as GroupSubsampling
from debias_ssae.baselines.heads import LastLayerRetraining as LastLayerRetraining
from debias_ssae.baselines.heads import LogisticHead as LogisticHead
from debias_ssae.baselines.heads import ParityThresholds as ParityThresholds
from debias_ssae.baselines.heads import ReducedHead as ReducedHead
from debias_ssae.baselines.text import HOSPITAL_WORDS as HOSPITAL_WORDS
from debias_ssae.baselines.text import AugmentedHead as AugmentedHead
from debias_ssae.baselines.text import ConceptBottleneck as ConceptBottleneck
from debias_ssae.baselines.text import TextScrubber as TextScrubber
from debias_ssae.baselines.text import TokenMask as TokenMask
from debias_ssae.baselines.text import augment_with_counterfactuals as augment_with_counterfactuals
from debias_ssae.baselines.text import hospital_words as hospital_words
