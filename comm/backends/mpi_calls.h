// MPI with errors as exceptions and handles with owners.
#pragma once

#include <mpi.h>

#include <exception>
#include <utility>

#include "cluster/base/error.h"

namespace echelon {

/// Errors: Error::comm with MPI's own words.
inline void mpi_check(int code, const char* operation) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error::comm(operation, text);
}

/// Owns a communicator.
class Communicator {
 public:
  Communicator() = default;
  explicit Communicator(MPI_Comm comm) : comm_(comm) { MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN); }
  Communicator(Communicator&& other) noexcept : comm_(std::exchange(other.comm_, MPI_COMM_NULL)) {}
  Communicator& operator=(Communicator&& other) noexcept {
    std::swap(comm_, other.comm_);
    return *this;
  }
  ~Communicator() {
    // On the way out of an error the others may not be there to free it with.
    if (comm_ != MPI_COMM_NULL && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }

  static Communicator copy_of(MPI_Comm comm) {
    MPI_Comm copy = MPI_COMM_NULL;
    mpi_check(MPI_Comm_dup(comm, &copy), "MPI_Comm_dup");
    return Communicator(copy);
  }
  Communicator split(int color, int key) const {
    MPI_Comm part = MPI_COMM_NULL;
    mpi_check(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
    return Communicator(part);
  }
  /// The ranks of this one that sit on this node.
  Communicator of_node() const {
    MPI_Comm part = MPI_COMM_NULL;
    mpi_check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &part), "MPI_Comm_split_type");
    return Communicator(part);
  }

  MPI_Comm get() const { return comm_; }
  int rank() const {
    int rank = 0;
    MPI_Comm_rank(comm_, &rank);
    return rank;
  }
  int size() const {
    int size = 0;
    MPI_Comm_size(comm_, &size);
    return size;
  }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// Owns a request. One that is dropped unfinished belongs to a rank that has failed: MPI may not wait for it any more.
class Request {
 public:
  explicit Request(bool receives = false) : receives_(receives) {}
  Request(Request&& other) noexcept
      : request_(std::exchange(other.request_, MPI_REQUEST_NULL)), receives_(other.receives_) {}
  ~Request() {
    // Whoever frees the buffer next must not find a message in it.
    if (request_ != MPI_REQUEST_NULL && receives_) MPI_Cancel(&request_);
  }

  MPI_Request* out() { return &request_; }
  bool finished() {
    int done = 0;
    mpi_check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  }

 private:
  MPI_Request request_ = MPI_REQUEST_NULL;
  bool receives_;
};

}  // namespace echelon
