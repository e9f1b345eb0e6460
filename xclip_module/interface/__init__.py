"""The words that everything exchanges: records and protocols, and the grid of times that all rooms share."""

from xclip_module.interface.corpus import Corpus, Missing, Query, Segment, Video, split_hash
from xclip_module.interface.models import Batch, Embeddings, Picture, VideoTextModel
from xclip_module.interface.moments import Answer, Curve, Moment, Pair, Question, tiou
from xclip_module.interface.pictures import AnyGrid, ClipSource, PictureReader, PictureStream, check_length
from xclip_module.interface.sampling import Sampling, clip_rows, curve_times
from xclip_module.interface.video import FrameFolder, PacketTable, VideoInfo
