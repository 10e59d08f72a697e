#include "launch/options/heartbeat.h"

#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"

namespace echelon {

namespace {

constexpr size_t kKeyBytes = crypto_auth_KEYBYTES, kTagBytes = crypto_auth_BYTES;
constexpr int64_t kMost = 1LL << 62;

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

std::string path_in(const std::string& status_folder) { return join_path(status_folder, "control.json"); }

std::string hex(const std::string& key) {
  std::string text(2 * key.size() + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), bytes_of(key), key.size());
  text.pop_back();
  return text;
}

std::string unhex(const std::string& text) {
  std::string key(kKeyBytes, '\0');
  size_t length = 0;
  auto* to = reinterpret_cast<unsigned char*>(key.data());
  if (sodium_hex2bin(to, kKeyBytes, text.data(), text.size(), nullptr, &length, nullptr) != 0 || length != kKeyBytes)
    throw Error::storage("control.json", "no key in it");
  return key;
}

Json json_of(const RankView& view) {
  const ProgressState& progress = view.progress;
  return {{"rank", view.rank},
          {"host", view.host},
          {"phase", static_cast<int>(progress.phase)},
          {"step", progress.step},
          {"beats", progress.beats},
          {"first_step", progress.first_step},
          {"inside", view.inside},
          {"collective", view.collective},
          {"group", view.group},
          {"sequence", view.sequence},
          {"completed", view.completed}};
}

RankView view_of(const Json& json, const std::string& place) {
  auto integer = [&](const char* key, int64_t most) { return json_integer(json, key, place, 0, most); };
  RankView view{.rank = static_cast<int>(integer("rank", 1 << 20)), .host = json_string(json, "host", place)};
  view.progress = {.phase = static_cast<Phase>(integer("phase", static_cast<int64_t>(Phase::finish))),
                   .step = integer("step", kMost),
                   .beats = integer("beats", kMost),
                   .first_step = integer("first_step", kMost)};
  view.inside = json_bool(json, "inside", place);
  view.collective = json_string(json, "collective", place);
  view.group = json_string(json, "group", place);
  view.sequence = integer("sequence", kMost);
  view.completed = json.at("completed").get<std::map<std::string, int64_t>>();
  return view;
}

}  // namespace

std::string ControlPlane::new_key() {
  if (sodium_init() < 0) throw Error::internal("libsodium", "cannot be set up");
  std::string key(kKeyBytes, '\0');
  randombytes_buf(key.data(), key.size());
  return key;
}

void ControlPlane::write(const std::string& status_folder) const {
  std::string path = path_in(status_folder);
  std::string text = dump_json({{"host", host}, {"address", address}, {"port", port}, {"key", hex(key)}});
  Descriptor file = create_new(path, 0600);
  write_at(file, text.data(), text.size(), 0, path);
  file.close(path);
}

std::optional<ControlPlane> ControlPlane::read(const std::string& status_folder) try {
  std::string path = path_in(status_folder);
  Json json = parse_json(read_file(path, Error::Kind::storage, 1 << 16), path, Error::Kind::storage);
  return ControlPlane{.host = json_string(json, "host", path),
                      .address = json_string(json, "address", path),
                      .port = static_cast<int>(json_integer(json, "port", path, 1, 65535)),
                      .key = unhex(json_string(json, "key", path))};
} catch (const Error&) {
  return {};
}

std::string seal(const Beat& heartbeat, const std::string& key) {
  Json json = {{"number", heartbeat.number}, {"last", heartbeat.last}, {"view", json_of(heartbeat.view)}};
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string datagram(kTagBytes, '\0');
  crypto_auth(reinterpret_cast<unsigned char*>(datagram.data()), bytes_of(text), text.size(), bytes_of(key));
  return datagram + text;
}

std::optional<Beat> unseal(std::string_view datagram, const std::string& key) try {
  if (datagram.size() <= kTagBytes) return {};
  std::string_view text = datagram.substr(kTagBytes);
  if (crypto_auth_verify(bytes_of(datagram), bytes_of(text), text.size(), bytes_of(key)) != 0) return {};
  const std::string place = "heartbeat";
  Json json = parse_json(text, place);
  return Beat{.number = json_integer(json, "number", place, 1, kMost),
                   .last = json_bool(json, "last", place),
                   .view = view_of(json.at("view"), place)};
} catch (const Error&) {
  return {};
} catch (const Json::exception&) {
  return {};
}

}  // namespace echelon
