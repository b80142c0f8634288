"""Which words of a title move the price: the answer by Spark Structured Streaming, from a folder of JSON lines files.

    python boostwords.py items/ --follow
    spark-submit --py-files shifts.py,words.py boostwords.py hdfs:///items --follow

The options and the answer, to the last digit, are those of ``shifts.py``; what an item, a word and a shift are is
written down in ``words.py``. On a cluster the folders are URLs of a file system that all machines reach. Executors
read the files, each as a whole (a feed of one batch is small), and the driver sees no more than sums by word.

**The checkpoint** (``ITEMS_FOLDER.checkpoint`` if no other is named) belongs to one items folder. It knows which files
have been read, and has a row for each listing. A job that ended, also by kill -9, goes on from there; to count afresh,
remove it. It holds besides

=============  ====================================================================================
``answer``     the sums after the last batch: the answer where no file is new
``malformed``  the lines that are no items, with file, line number and reason, as JSON lines
=============  ====================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from decimal import Decimal
from io import BytesIO

import words
from shifts import Analysis, command_line, remarks, show, until_signalled
from words import Malformed, Sums, is_feed, read_feed, shifts_of

try:
    from pyspark.errors import AnalysisException, PySparkRuntimeError
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql.streaming.query import StreamingQuery
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install pyspark; shifts.py gives the same answer without it") from error

POLL_SECONDS = 1

PARTITIONS = "spark.sql.shuffle.partitions"
LISTING = "spark.sql.sources.parallelPartitionDiscovery.threshold"

FILE = "path string, modificationTime timestamp, length long, content binary"
"""A file of Spark's binaryFile source: its bytes, so that lines and letters are told apart by the same code as without
Spark."""

UNITS = "decimal(25, 0)"
"""Of `words.PRICE_UNIT`. A price has up to 25 digits, and Spark's 38 hold the sum of 10 ** 10 of them at least."""

HALF = 10**24
"""The square of a price has more digits than any type of Spark's: it is added up in two halves."""

LINES = (
    f"array<struct<listing: string, file: string, line: int, price: {UNITS}, high: {UNITS}, low: {UNITS},"
    " tallies: array<struct<kind: string, name: string>>>>"
)
"""What a file says. Each row counts once for each of its ``tallies``: an item and its words, or a malformed line (by
what is set aside of it), or the file itself, which has row 0. Of the rows of one listing only the first counts."""

ANSWER = (
    "kind string, name string, count long, price decimal(35, 0), high decimal(35, 0), low decimal(35, 0),"
    " first struct<file: string, line: int>"
)
"""The sums: of each kind and name, how many lines count for it, their prices, and where the first of them stands."""

Line = tuple[str, str, int, Decimal, Decimal, Decimal, list[tuple[str, str]]]


def lines_of(path: str, content: bytes) -> list[Line]:
    """What a file says: runs on executors, for each file once."""
    name = path.rpartition("/")[2]
    if not is_feed(name):
        return []
    lines = [line_of(name, 0, [("file", name)])]
    for number, said in read_feed(name, BytesIO(content)):
        if isinstance(said, Malformed):
            lines.append(line_of(name, number, [("malformed", said.as_json())]))
        else:
            tallies = [("item", ""), *(("word", word) for word in said.words)]
            lines.append(line_of(name, number, tallies, listing=said.url, price=said.price))
    return lines


def line_of(
    name: str, number: int, tallies: list[tuple[str, str]], *, listing: str | None = None, price: int = 0
) -> Line:
    """One row of `LINES`. JSON keeps what is no Unicode text (half a surrogate pair) out of Spark."""
    high, low = divmod(price**2, HALF)
    key = json.dumps([name, number] if listing is None else listing)
    return key, name, number, Decimal(price), Decimal(high), Decimal(low), tallies


def listings_of(files: DataFrame) -> DataFrame:
    """A row for each listing, from what all files say: Spark keeps these from batch to batch, and over a restart."""
    lines = F.explode(F.udf(lines_of, LINES, useArrow=False)("path", "content"))
    first = F.min(F.struct("file", "line", "price", "high", "low", "tallies"))
    return files.select(lines.alias("said")).select("said.*").groupBy("listing").agg(first.alias("first"))


def tally(listings: DataFrame) -> DataFrame:
    """The sums by kind and name, as in `ANSWER`."""
    tallies = listings.select("first.*").withColumn("tally", F.explode("tallies"))
    sums = [F.sum(column).alias(column) for column in ("price", "high", "low")]
    first = F.min(F.struct("file", "line")).alias("first")
    return tallies.groupBy("tally.kind", "tally.name").agg(F.count("*").alias("count"), *sums, first)


class Answer:
    """The sums after the last batch, kept in the checkpoint.

    Spark repeats a batch that it has not finished, so writing one twice has to come to the same: each batch replaces
    all that the one before has written.
    """

    def __init__(self, spark: SparkSession, *, checkpoint: str, malformed: str) -> None:
        self._spark = spark
        self._sums = f"{checkpoint}/answer"
        self._malformed = malformed

    def write(self, listings: DataFrame) -> None:
        """Replace the answer. One file, so that it is there as a whole or not at all."""
        tally(listings).repartition(1).write.mode("overwrite").parquet(self._sums)
        malformed = self._read().where("kind = 'malformed'").coalesce(1).sortWithinPartitions("first")
        malformed.select("name").write.mode("overwrite").text(self._malformed)

    def analysis(self) -> Analysis:
        """The answer as it was last written."""
        try:
            answer = self._read()
        except AnalysisException as error:
            if error.getCondition() != "PATH_NOT_FOUND":
                raise
            return Analysis(shifts=(), items=0, files=0, malformed=0)
        by_word = {row["name"]: (row["count"], int(row["price"])) for row in answer.where("kind = 'word'").collect()}
        kinds = (
            answer.where("kind != 'word'")
            .groupBy("kind")
            .agg(
                *(F.sum(column).alias(column) for column in ("count", "price", "high", "low")),
                F.min(F.struct("first", "name")).alias("first"),
            )
        )
        by_kind = {row["kind"]: row for row in kinds.collect()}
        files, items, malformed = (by_kind.get(kind) for kind in ("file", "item", "malformed"))
        sums = Sums(
            items=items["count"] if items else 0,
            price=int(items["price"]) if items else 0,
            squares=int(items["high"]) * HALF + int(items["low"]) if items else 0,
            words=by_word,
        )
        return Analysis(
            shifts=shifts_of(sums),
            items=sums.items,
            files=files["count"] if files else 0,
            malformed=malformed["count"] if malformed else 0,
            first_malformed=str(Malformed(**json.loads(malformed["first"]["name"]))) if malformed else None,
        )

    def _read(self) -> DataFrame:
        return self._spark.read.schema(ANSWER).parquet(literal(self._sums))


def session(master: str | None) -> SparkSession:
    """A session on the machines of ``master``, or on those that spark-submit has named, or on this one."""
    builder = SparkSession.builder.appName("boostwords").config("spark.ui.showConsoleProgress", "false")
    spark = (builder.master(master) if master else builder).getOrCreate()
    context = spark.sparkContext
    context.setLogLevel("ERROR")
    context.addPyFile(words.__file__)
    # A sum that does not fit is an error, also before Spark 4, and not null.
    spark.conf.set("spark.sql.ansi.enabled", "true")
    if str(context.master).startswith("local"):
        # Left to itself, Spark takes the first python3 of the PATH, which may be of another version.
        context.pythonExec = os.environ.get("PYSPARK_PYTHON", sys.executable)
        # Spark's own values are made for a cluster: 200 partitions, and a job to list a folder of 32 files.
        for name, value in {PARTITIONS: context.defaultParallelism, LISTING: 100_000}.items():
            if context.getConf().get(name) is None:
                spark.conf.set(name, str(value))
    return spark


def literal(path: str) -> str:
    """As a pattern, which Spark takes every path for."""
    return re.sub(r"[\\\[\]{}*?]", r"\\\g<0>", path)


def folder_url(spark: SparkSession, path: str) -> str:
    """A folder as Spark has it in the paths of its files. Raises `NotADirectoryError`."""
    context = spark.sparkContext
    assert context._jvm is not None
    folder = context._jvm.org.apache.hadoop.fs.Path(path)
    files = folder.getFileSystem(context._jsc.hadoopConfiguration())
    if not files.isDirectory(folder):
        raise NotADirectoryError(path)
    return str(files.makeQualified(folder).toString()).rstrip("/")


def tell(spark: SparkSession, options: argparse.Namespace, analysis: Analysis) -> None:
    """Print the answer, and remarks on standard error: on Java's, since spark-submit lays Python's over its output."""
    show(analysis, json_lines=options.json, top=options.top)
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    for remark in remarks(options.items, analysis):
        jvm.java.lang.System.err.println(remark)


def start(spark: SparkSession, options: argparse.Namespace, answer: Answer) -> StreamingQuery:
    """Start to read the items folder: what is there, or also what comes. Raises `NotADirectoryError`."""
    folder = folder_url(spark, options.items)
    files = (
        spark.readStream.format("binaryFile")
        .schema(FILE)
        # Spark forgets files that are older than the newest by `maxFileAge`, and then skips them: never.
        .options(pathGlobFilter="*.{jl,jsonl}", maxFileAge="36500d")
        # Else a folder in this one with a name like `day=1` makes Spark look for partitions, and leave out the rest.
        # What is in such a folder is read as well, and left out below.
        .option("recursiveFileLookup", "true")
        .load(literal(options.items))
        .where(F.regexp_replace("path", "/[^/]*$", "") == folder)
    )

    def take(listings: DataFrame, batch: int) -> None:
        answer.write(listings)
        if options.follow:
            tell(spark, options, answer.analysis())

    writer = listings_of(files).writeStream.outputMode("complete").option("checkpointLocation", options.checkpoint)
    triggered = writer.trigger(processingTime="1 second") if options.follow else writer.trigger(availableNow=True)
    return triggered.foreachBatch(take).start()


def run(spark: SparkSession, options: argparse.Namespace) -> int:
    """Read and answer until there is nothing left, or until a signal; the exit code. Raises `NotADirectoryError`."""
    stopped = until_signalled()
    answer = Answer(spark, checkpoint=options.checkpoint, malformed=options.malformed)
    if options.follow and (before := answer.analysis()).files:
        tell(spark, options, before)
    query = start(spark, options, answer)
    while not query.awaitTermination(POLL_SECONDS):
        if stopped.is_set():
            query.stop()
            return 0 if options.follow else 1
    analysis = answer.analysis()
    tell(spark, options, analysis)
    return 0 if analysis.items else 1


def main() -> int:
    """Read the command line, then the folder; the exit code."""
    parser = command_line("Which words of a title move the price, by Spark.", "folder or URL of JSON lines files")
    parser.add_argument("--checkpoint", metavar="FOLDER", help="what has been read (ITEMS_FOLDER.checkpoint)")
    parser.add_argument("--malformed", metavar="FOLDER", help="lines that are no items (CHECKPOINT/malformed)")
    parser.add_argument("--master", metavar="URL", help="Spark's master (spark-submit's, or this machine)")
    options = parser.parse_args()
    options.checkpoint = options.checkpoint or f"{options.items.rstrip('/')}.checkpoint"
    options.malformed = options.malformed or f"{options.checkpoint}/malformed"
    try:
        spark = session(options.master)
    except PySparkRuntimeError as error:
        parser.exit(1, f"{parser.prog}: {error}\nSpark needs Java 17 or later; shifts.py does without\n")
    try:
        return run(spark, options)
    except NotADirectoryError:
        parser.error(f"{options.items} is not a folder; expected the one that the feeds land in")
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
