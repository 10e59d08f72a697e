#include "cluster/base/secret.h"

#include <gtest/gtest.h>

#include "cluster/base/error.h"

namespace echelon {
namespace {

TEST(Secret, IsKeptBack) {
  EXPECT_EQ(redacted("load: hf_abcdefghijKLMN0123"), "load: <redacted>");
  EXPECT_EQ(redacted("https://me:pa%40ss@host/x and more"), "https://<redacted>@host/x and more");
  EXPECT_EQ(redacted("WANDB_API_KEY=0123456789abcdef"), "WANDB_API_KEY=<redacted>");
  EXPECT_EQ(redacted("{\"password\": \"correct-horse\"}"), "{\"password\": \"<redacted>\"}");
  EXPECT_EQ(redacted("Authorization: Bearer abc.def.ghi-jkl"), "Authorization: Bearer <redacted>");
  EXPECT_EQ(redacted("x aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA y"), "x <redacted> y");
  EXPECT_EQ(redacted("--npm_abcdefghijKLMN0123: no such flag"), "--<redacted>: no such flag");
  EXPECT_EQ(redacted("?a=1&access_token=0123456789&b=2"), "?a=1&access_token=<redacted>&b=2");
}

TEST(Secret, IsNotWhatFilesAndTensorsAreNamed) {
  for (const char* text :
       {"snapshots/0a3f9c1e5b7d2468ace013579bdf02468ace1357/model.safetensors",
        "model.layers.0.self_attn.q_proj.weight", "token id 512 at position 3, expected ids below 500",
        "/home/me@host/runs/decoder-20260101-120000", "the tokenizer's special_tokens_map.json",
        "step-00000050: tile 3 of shard-00001-of-00002.safetensors", "token: 12", "pad_token: unexpected word",
        "hf_models_and_checkpoints_2024/bert", "sk-learn-models", "key \"token\" stands twice", "//comment"})
    EXPECT_EQ(redacted(text), text);
}

TEST(Secret, OfEveryKindIsFoundButRandomWords) {
  EXPECT_TRUE(holds_secret("ghp_0123456789abcdef"));
  EXPECT_TRUE(holds_secret("s3://key:secret@bucket/x"));
  EXPECT_FALSE(holds_secret("aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA"));
  EXPECT_FALSE(holds_secret("corpus/train"));
}

TEST(Secret, DoesNotStandInAnErrorsSentence) {
  std::string sentence = Error::input("https://me:secret@host/x", "no such folder").got("hf_abcdefghijKLMN0123").what();
  EXPECT_EQ(sentence, "input: https://<redacted>@host/x: no such folder: got <redacted>");
}

}  // namespace
}  // namespace echelon
