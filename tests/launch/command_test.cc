// The command itself, as a person meets it.
#include <sys/resource.h>

#include "tests/launch/fake_installation.h"

namespace echelon {
namespace {

double children_seconds() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class CommandTest : public testing::Test {
 protected:
  void refuses(const std::vector<std::string>& arguments, int exit_code, const std::string& sentence) {
    Outcome outcome = echelon_.run(arguments);
    EXPECT_EQ(outcome.ending.exit_code, exit_code) << outcome.output;
    EXPECT_EQ(outcome.last_line(), "echelon: " + sentence);
  }
  FakeInstallation echelon_;
};

TEST_F(CommandTest, UnknownCommandsAndFlagsHaveNearestNames) {
  refuses({"trian"}, 2, "usage: trian: no such command; did you mean \"train\"?");
  refuses({"train", "x", "--rnks=2"}, 2, "usage: --rnks=2: no such flag of train; did you mean \"--ranks\"?");
  refuses({}, 2, "usage: echelon: no command given; `echelon --help` lists them");
}

TEST_F(CommandTest, CommandsToComeAreRefusedByName) {
  for (const char* name : {"plan", "verify"}) {
    refuses({name, "x"}, 2, std::string("usage: ") + name + ": this command is not available yet");
  }
}

TEST_F(CommandTest, WrongArgumentsAreRefused) {
  refuses({"train"}, 2, "usage: train: too few arguments, expected RECIPE [path=value ...]");
  refuses({"train", "x", "--ranks=two"}, 2, "usage: --ranks=two: \"two\" is no int32");
  refuses({"train", "x", "--ranks=0x10000000"}, 2, "usage: --ranks: out of range: got 268435456, expected 0 to 65536");
  refuses({"train", "x", "--ranks"}, 2, "usage: --ranks: needs a value; write --ranks=VALUE");
  refuses({"train", "x", "--launcher=ssh"}, 2,
          "usage: --launcher: unknown launcher: got ssh, expected auto, mpirun or srun");
  refuses({"train", "x", "--profile=first"}, 2, "usage: --profile=first: \"first\" is no int64");
  refuses({"train", "x", "--profile=-1"}, 2, "usage: --profile: out of range: got -1, expected 0 to 1000000000");
  refuses({"train", "base/tiny_decoder_clm", "steps=7", "--profile=8"}, 2,
          "usage: --profile: this run has no such step: got 8, expected 1 to 7");
  refuses({"merge", "--model=a", "--out=b"}, 2, "usage: --adapter: must be given");
  refuses({"train", "x", "--hosts=-oProxyCommand=x"}, 2,
          "usage: --hosts: \"-oProxyCommand=x\" is no host name, expected letters, digits, dots and hyphens");
  refuses({"inspect", "a", "b"}, 2, "usage: inspect: too many arguments: \"b\", expected PATH");
  refuses({"generate", "--model=m"}, 2, "usage: generate: give one of --prompt, --prompt_ids and --prompts");
}

TEST_F(CommandTest, AHostileNumberOfRanksIsRefused) {
  Outcome outcome = echelon_.run({"train", "base/tiny_decoder_clm", "--ranks=60000", "--launcher=mpirun"});
  EXPECT_EQ(outcome.ending.exit_code, 2);
  EXPECT_NE(outcome.output.find("at most 16 a processor"), std::string::npos) << outcome.output;
}

TEST_F(CommandTest, ARecipeIsRefusedBeforeARankStarts) {
  refuses({"train", "base/tiny_decoder_clm", "mesh.pp=2"}, 3,
          "recipe: mesh.pp=2: pipeline parallelism (mesh.pp = 2) is not available yet");
  refuses({"train", "base/tiny_decodr_clm"}, 3,
          "recipe: base/tiny_decodr_clm: no file and no recipe of that name; did you mean \"base/tiny_decoder_clm\"?");
}

TEST_F(CommandTest, ADryRunPrintsARecipeThatCanBeFedBack) {
  Outcome outcome = echelon_.run({"train", "base/tiny_decoder_clm", "steps=7", "--dry_run"}, "dry");
  EXPECT_EQ(outcome.ending.exit_code, 0) << outcome.output;
  std::ofstream(echelon_.file("again.textproto")) << outcome.output;
  Outcome again = echelon_.run({"train", echelon_.file("again.textproto"), "--dry_run"}, "dry");
  EXPECT_EQ(again.output, outcome.output);
  EXPECT_NE(outcome.output.find("steps: 7\n"), std::string::npos);
}

TEST_F(CommandTest, AnotherRecipeInTheSameFolderIsRefusedByTheField) {
  std::filesystem::create_directories(echelon_.file("run"));
  std::ofstream(echelon_.file("run/recipe.textproto"))
      << echelon_.run({"train", "base/tiny_decoder_clm", "--dry_run"}, "dry").output;
  std::vector<std::string> arguments = echelon_.train(1);
  EXPECT_EQ(echelon_.run(arguments).ending.exit_code, 0);
  arguments.push_back("steps=500");
  EXPECT_EQ(echelon_.run(arguments).ending.exit_code, 0);
  arguments.push_back("optimizer.learning_rate=1");
  Outcome outcome = echelon_.run(arguments);
  EXPECT_EQ(outcome.ending.exit_code, 3);
  EXPECT_NE(outcome.last_line().find("another optimizer.learning_rate"), std::string::npos) << outcome.output;
  arguments.pop_back();
  arguments.push_back("--resume=never");
  EXPECT_EQ(echelon_.run(arguments).ending.exit_code, 3);
}

TEST_F(CommandTest, HelpComesAtOnceForEveryCommand) {
  for (const char* name :
       {"train", "batches", "eval", "forward", "generate", "export", "inspect", "recipes", "describe", "doctor"}) {
    Outcome outcome = echelon_.run({name, "--help"});
    EXPECT_EQ(outcome.ending.exit_code, 0);
    EXPECT_TRUE(outcome.output.starts_with(std::string("echelon ") + name)) << outcome.output;
  }
  // Processor time: the promise is 50 ms on a machine that is otherwise idle, and tests share theirs.
  double before = children_seconds();
  for (int i = 0; i < 5; ++i) echelon_.run({"--help"});
  EXPECT_LT((children_seconds() - before) / 5, 0.05);
}

TEST_F(CommandTest, RecipesAndPartsAreDescribed) {
  EXPECT_NE(echelon_.run({"recipes"}).output.find("base/tiny_encoder_mlm"), std::string::npos);
  EXPECT_NE(echelon_.run({"describe"}).output.find("WarmupCosine"), std::string::npos);
  std::string adamw = echelon_.run({"describe", "AdamW"}).output;
  EXPECT_NE(adamw.find("Decoupled Weight Decay"), std::string::npos) << adamw;
  EXPECT_NE(adamw.find("double, default 0.999, in [0, 1)"), std::string::npos) << adamw;
  EXPECT_NE(echelon_.run({"describe", "mesh"}).output.find("what remains"), std::string::npos);
  refuses({"describe", "AdmW"}, 2, "usage: AdmW: no Part and no recipe of that name; did you mean \"AdamW\"?");
}

TEST_F(CommandTest, DoctorSaysWhatIsThereAndWhetherItIsEnough) {
  Outcome outcome = echelon_.run({"doctor"});
  for (const char* subject : {"MPI", "LibTorch", "CUDA", "NCCL", "GPUs", "Slurm", "processors", "memory", "limits"}) {
    EXPECT_NE(outcome.output.find(subject), std::string::npos) << subject;
  }
  EXPECT_EQ(outcome.ending.exit_code, 0) << outcome.output;
  std::filesystem::remove(echelon_.file("bin/echelon-rank"));
  EXPECT_EQ(echelon_.run({"doctor"}).ending.exit_code, 3);
}

TEST_F(CommandTest, InspectRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(echelon_.run({"inspect", echelon_.file("nothing")}).ending.exit_code, 4);
}

}  // namespace
}  // namespace echelon
